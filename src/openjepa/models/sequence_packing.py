"""Sequence packing: several short texts in a row, without attention between them, for less padding in any model.

Source: Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination".
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from openjepa.core.sizes import round_up
from openjepa.models.attention import SHORT
from openjepa.models.packing import WORTH, put_rows, take_rows

STEP = 32  # tokens; lengths of rows are multiples, as CPU matrix products of a new size have to be prepared first
LENGTHS = 6  # of rows, that are tried


class SequencePacking:
    """The texts of `segments` [B, T] in R rows of W tokens.

    A text is the tokens of one row with the same number; negative numbers are padding. See `fewest_positions` for W.
    """

    def __init__(self, segments: Tensor, longest: int) -> None:
        self.shape = segments.shape
        self.source = (segments >= 0).flatten().nonzero()[:, 0]  # [N] flat positions of the real tokens
        number = segments.flatten()[self.source].unique(return_inverse=True)[1]  # [N], from 0
        text = self.source // max(1, self.shape[1]) * len(number) + number  # [N], rows share none
        _, text, length = text.unique(return_inverse=True, return_counts=True)  # [N], [M]
        self.size, start = fewest_positions(length.tolist(), self.shape[1], longest)
        order = text.argsort(stable=True)  # [N] text by text
        nth = torch.empty_like(text)  # [N] position of each token in its text
        nth[order] = torch.arange(len(text), device=text.device) - (length.cumsum(0) - length)[text[order]]
        self.target = torch.tensor(start, dtype=torch.long, device=text.device)[text] + nth  # [N] positions in the rows
        self.segments = self._put(text, -1)  # [R, W] the number of each token's text; -1 on padding

    @property
    def worth(self) -> bool:
        """Whether the new rows have clearly fewer positions than the old ones."""
        return 0 < self.size[0] * self.size[1] <= WORTH * self.shape.numel()

    def pack(self, x: Tensor) -> Tensor:
        """Numbers of the tokens [B, T] -> [R, W], 0 on padding."""
        return self._put(x.flatten()[self.source], 0)

    def unpack(self, x: Tensor) -> Tensor:
        """[R, W, D] -> [B, T, D], 0 on padding."""
        real = take_rows(x.flatten(0, 1), self.target)  # [N, D]
        return put_rows(real, self.source, self.shape.numel()).unflatten(0, self.shape)

    def _put(self, values: Tensor, padding: int) -> Tensor:
        rows, width = self.size
        return values.new_full((rows * width,), padding).scatter(0, self.target, values).view(rows, width)


def fewest_positions(lengths: Sequence[int], least: int, longest: int) -> tuple[tuple[int, int], list[int]]:
    """The number and length of rows with the fewest positions for texts of `lengths`, and each text's start in them.

    LENGTHS lengths are tried from `least` on, up to `longest` and to SHORT, beyond which attention is slow; if `least`
    is beyond it, only that.
    """
    first = round_up(least, STEP)
    last = min(longest, max(first, SHORT))
    widths = range(first, last + 1, STEP)[:LENGTHS] or [least]
    fits = [(best_fit(lengths, width), width) for width in widths]
    (rows, starts), width = min(fits, key=lambda fit: fit[0][0] * fit[1])
    return (rows, width), starts


def best_fit(lengths: Sequence[int], width: int) -> tuple[int, list[int]]:
    """Pack texts of `lengths` into rows of `width`: how many rows, and where in the flat rows each text starts.

    Best fit decreasing: longest first, each into the fullest row that has room for it.
    """
    rows_with: dict[int, list[int]] = defaultdict(list)  # rows by their free space
    rooms: list[int] = []  # free spaces that rows have, in order
    starts = [0] * len(lengths)
    rows = 0
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect_left(rooms, lengths[text])
        if at == len(rooms):
            room = width
            row = rows
            rows += 1
        else:
            room = rooms[at]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rooms[at]
        starts[text] = (row + 1) * width - room
        left = room - lengths[text]
        if not rows_with[left]:
            insort(rooms, left)
        rows_with[left].append(row)
    return rows, starts
