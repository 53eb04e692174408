"""Checks of a recipe on one batch before training: leaks, gradients, masks, positions."""
