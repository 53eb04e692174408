"""Tokenizers: chosen, read from the files that others keep them in, or trained."""
