"""What can be asked of an encoder: tasks made from worlds, from labels and from files; `evals` answers them."""
