"""Smaller vectors: their first dimensions alone, 8-bit integers or one bit a dimension, and what that costs.

The cost is measured on the vectors themselves: which share of each one's nearest neighbours stays among its nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from openjepa.core.errors import UserError
from openjepa.evals.features import inner_products, unit_rows

Quantization = Literal["none", "int8", "binary"]
NEIGHBOURS = 10
FEWEST_ROWS = 5 * NEIGHBOURS  # among fewer, most rows are neighbours by chance
INT8_MAX = 127


@dataclass(frozen=True)
class Compaction:
    """What is kept of vectors of `full_dim` dimensions.

    Args:
        full_dim: D.
        dims: how many of the first dimensions are kept; None = all.
        quantization: "int8" = round(x / scale) in -127..127 with one scale for all, so that inner products of codes
            are those of the vectors, scaled; "binary" = the signs, eight to a byte, most significant bit first.
        unit_length: whether vectors have length 1, and are scaled to it again after a cut.

    Raises UserError if there are fewer dimensions, or signs that fill no whole bytes.
    """

    full_dim: int
    dims: int | None = None
    quantization: Quantization = "none"
    unit_length: bool = False

    def __post_init__(self) -> None:
        if self.dims is not None and not 1 <= self.dims <= self.full_dim:
            raise UserError(f"--dims {self.dims}: this run's vectors have {self.full_dim} dimensions; take 1 to that")
        if self.quantization == "binary" and self.kept % 8:
            raise UserError(
                f"--quantize binary packs 8 dimensions into a byte, and {self.kept} do not fill whole ones; add "
                f"--dims {max(8, self.kept - self.kept % 8)}"
            )

    @property
    def kept(self) -> int:
        """Dimensions that are kept."""
        return self.full_dim if self.dims is None else self.dims

    @property
    def width(self) -> int:
        """Numbers in a written row."""
        return self.kept // 8 if self.quantization == "binary" else self.kept

    @property
    def dtype(self) -> str:
        """NumPy's name of the numbers in a written row."""
        return {"none": "<f4", "int8": "|i1", "binary": "|u1"}[self.quantization]

    @property
    def changes(self) -> bool:
        """Whether anything is left out."""
        return self.quantization != "none" or self.kept < self.full_dim

    def cut(self, vectors: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, kept] float32."""
        if self.kept == self.full_dim:
            return vectors
        first = vectors[:, : self.kept]
        return unit_rows(first).astype(np.float32) if self.unit_length else first

    def scale_of(self, vectors: np.ndarray) -> float:
        """The step between two codes of int8 at which none of `vectors` [N, D] is clipped."""
        largest = float(np.abs(self.cut(vectors)).max(initial=0.0))
        return largest / INT8_MAX if largest else 1.0

    def codes(self, vectors: np.ndarray, scale: float) -> tuple[np.ndarray, int]:
        """[N, D] float32 -> rows as they are written [N, width], and how many numbers were clipped to fit."""
        kept = self.cut(vectors)
        match self.quantization:
            case "int8":
                steps = np.rint(kept / scale)
                clipped = int((np.abs(steps) > INT8_MAX).sum())
                return np.clip(steps, -INT8_MAX, INT8_MAX).astype(np.int8), clipped
            case "binary":
                return np.packbits(kept > 0, axis=1), 0
            case _:
                return kept, 0

    def approximations(self, codes: np.ndarray) -> np.ndarray:
        """Codes [N, width] -> vectors [N, kept] whose cosines a search over the codes ranks by."""
        if self.quantization == "binary":
            return np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1
        return codes.astype(np.float32)


def neighbours_kept(full: np.ndarray, compact: np.ndarray) -> float | None:
    """Which share of each row's 10 nearest in `full` [N, D] is among its 10 nearest in `compact` [N, E], by cosine.

    0 to 1, higher is better; None for fewer than 50 rows.
    """
    if len(full) < FEWEST_ROWS:
        return None
    before = _nearest(full)
    after = _nearest(compact)
    shared = [len(set(a) & set(b)) for a, b in zip(before, after, strict=True)]
    return float(np.mean(shared)) / NEIGHBOURS


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """[N, D] -> [N, 10] numbers of the other rows with the largest cosines."""
    unit = unit_rows(vectors)
    cosines = inner_products(unit, unit)
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
