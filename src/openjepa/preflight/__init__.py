"""Checks of a recipe on one batch, before hours are spent: leaks, gradients, masks, positions."""
