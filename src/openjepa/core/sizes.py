"""Rounding sizes up: on CPU, the first matrix product of a new size has a set-up cost."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Sizes = TypeVar("Sizes", int, np.ndarray)


def round_up(sizes: Sizes, multiple: int) -> Sizes:
    """The next multiple of sizes >= 0."""
    return -(-sizes // multiple) * multiple  # ty: ignore[invalid-explicit-return]  - of the type that came in
