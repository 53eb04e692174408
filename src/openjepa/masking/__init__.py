"""Masks. One convention everywhere: `valid` True = exists, `hidden` True = must be predicted."""
