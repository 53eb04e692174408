"""Short texts side by side in the rows of an encoder's input, none reading another: less padding, for any model.

Source: Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openjepa.core.sizes import round_up
from openjepa.models.packing import WORTH, put_rows, take_rows

GRAIN = 32  # tokens; lengths of rows are multiples: on CPU a matrix product of a new size has to be prepared first
WIDTHS = 6  # lengths that are tried


class SequencePacking:
    """The texts of `segments` [B, T] in R rows of W tokens.

    A text is the tokens of one row with the same number; negative ones are padding. Of several W, from T up to
    `longest`, that with the fewest places is taken.
    """

    def __init__(self, segments: Tensor, longest: int) -> None:
        self.shape = segments.shape
        self.source = (segments >= 0).flatten().nonzero()[:, 0]  # [N] flat places of the real tokens
        numbers = segments.numel() and int(segments.max()) + 1
        text = self.source // max(1, self.shape[1]) * numbers + segments.flatten()[self.source]  # [N], rows share none
        _, text, length = text.unique(return_inverse=True, return_counts=True)  # [N], [M]
        self.size, start = fewest_places(length.tolist(), self.shape[1], longest)
        order = text.argsort(stable=True)  # [N] text by text
        nth = torch.empty_like(text)  # [N] place of each token in its text
        nth[order] = torch.arange(len(text), device=text.device) - (length.cumsum(0) - length)[text[order]]
        self.target = torch.tensor(start, device=text.device)[text] + nth  # [N] flat places in the new rows
        self.segments = self._put(text, -1)  # [R, W] the number of each token's text; -1 on padding

    @property
    def worth(self) -> bool:
        """Whether the new rows are clearly fewer places than the old ones."""
        return 0 < self.size[0] * self.size[1] <= WORTH * self.shape.numel()

    def pack(self, x: Tensor) -> Tensor:
        """Numbers of the tokens [B, T] -> [R, W], 0 on padding."""
        return self._put(x.flatten()[self.source], 0)

    def unpack(self, x: Tensor) -> Tensor:
        """[R, W, D] -> [B, T, D], 0 on padding."""
        return put_rows(take_rows(x.flatten(0, 1), self.target), self.source, self.shape.numel()).unflatten(
            0, self.shape
        )

    def _put(self, values: Tensor, padding: int) -> Tensor:
        rows, width = self.size
        return values.new_full((rows * width,), padding).scatter(0, self.target, values).view(rows, width)


def fewest_places(lengths: Sequence[int], least: int, longest: int) -> tuple[tuple[int, int], list[int]]:
    """Rows and width, `least` to `longest`, that need the fewest places, and where in them each text starts."""
    narrowest = round_up(least, GRAIN)
    widths = [w for w in range(narrowest, narrowest + WIDTHS * GRAIN, GRAIN) if w <= longest] or [least]
    fits = [(best_fit(lengths, width), width) for width in widths]
    (rows, starts), width = min(fits, key=lambda fit: fit[0][0] * fit[1])
    return (rows, width), starts


def best_fit(lengths: Sequence[int], width: int) -> tuple[int, list[int]]:
    """Room for texts of these lengths in rows of `width`: how many rows, and where in the flat rows each text starts.

    Longest first, each into the fullest row that has room for it.
    """
    rows_with: list[list[int]] = [[] for _ in range(width + 1)]  # by the room that they have left
    starts, rows = [0] * len(lengths), 0
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = next((room for room in range(lengths[text], width) if rows_with[room]), width)
        if room == width:
            rows_with[width].append(rows)
            rows += 1
        row = rows_with[room].pop()
        starts[text] = (row + 1) * width - room
        rows_with[room - lengths[text]].append(row)
    return rows, starts
