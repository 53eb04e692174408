"""Questions with their answers: records, rows and batches."""
