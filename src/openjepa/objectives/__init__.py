"""Distances between latents, and regularisers that keep them from collapsing."""
