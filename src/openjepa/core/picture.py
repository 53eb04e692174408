"""Rows of a batch for display, position by position, so that pages can show any recipe's masks.

A position is one entry of a mask: a token of a text, a patch of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openjepa.core.masks import Grid


@dataclass(frozen=True)
class Pieces:
    """A text, cut into its positions."""

    texts: Sequence[str]  # [N] text of each position, with a space in front where a word begins; anything on padding


@dataclass(frozen=True)
class Patches:
    """An image; its positions are the cells of a grid in raster order."""

    pixels: np.ndarray  # [H, W, 3] uint8
    grid: Grid
    caption: str = ""  # a text that belongs to it, if any


Picture = Pieces | Patches
