"""Baselines for JEPAs: other objectives on the same encoder, data and budget."""
