"""Images: where they come from, how they are decoded and kept, and batches in which some patches are hidden."""
