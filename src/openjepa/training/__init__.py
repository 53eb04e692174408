"""The one training loop and what it needs: optimiser, checkpoints, hooks; and a run into its folder."""
