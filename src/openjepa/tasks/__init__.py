"""Evaluation tasks made from worlds, labels and files; `evals` scores models on them."""
