"""A run folder opened for use, in three steps: its weights, its vectors, and what is asked of them."""
