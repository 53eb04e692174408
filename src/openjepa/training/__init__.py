"""The training loop with optimiser, checkpoints and hooks, and training of a run into its folder."""
