"""Tokenizers: chosen, read from the usual file formats, or trained."""
