"""Sums of rows by the group that each belongs to."""

from __future__ import annotations

import numpy as np


def group_sums(values: np.ndarray, group: np.ndarray, groups: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """values [N, ...], group [N] of numbers from 0 -> sums [G, ...] and how many rows each has [G]; G >= `groups`."""
    counts = np.bincount(group, minlength=groups)  # [G]
    sums = np.zeros((len(counts), *values.shape[1:]), dtype=values.dtype)  # [G, ...]
    np.add.at(sums, group, values)
    return sums, counts
