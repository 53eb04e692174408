"""Files that users have, of any kind, as records: found, opened, decompressed, decoded and counted."""
