"""Evaluations of embeddings: probes, similarity and triplets, always with baselines."""
