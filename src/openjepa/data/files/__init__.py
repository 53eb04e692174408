"""Files of any kind that is read, as records: found, opened, decompressed, decoded and counted."""
