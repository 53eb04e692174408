"""Documents: where they come from, their rows of token ids, and batches in which some of them are hidden."""
