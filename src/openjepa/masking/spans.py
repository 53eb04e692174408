"""Hide contiguous spans of a sequence: `valid` [N] bool (True = may be hidden) -> `hidden` [N] bool (True = hidden).

The number of hidden tokens is exact: round(ratio * real length), at least 1 and never all. Two random compositions, of
the hidden tokens into spans and of the visible tokens into gaps, make the spans, so nothing is rejected or retried,
every position can be hidden, and two spans never touch. Positions that are not valid are skipped as if absent.

Each of the V + 1 slots before, between and after the V visible tokens holds one of the S spans with probability S / (V
+ 1). The first and last positions, which one slot alone can reach, are therefore hidden with that probability: less
often than a position in the middle (0.16 against 0.4 for 100 tokens, ratio 0.4 and spans of 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig
from openjepa.core.errors import ConfigError


class MaskConfig(BaseConfig):
    """Which tokens are hidden, and how."""

    FIRST = ("ratio", "mean_span")

    ratio: float = Field(0.5, gt=0, lt=1)
    """hidden part of each text's real tokens"""
    mean_span: float = Field(12.0, ge=1)
    """average length of a hidden span in tokens"""
    how: Literal["drop", "mask"] = "drop"
    """drop hidden tokens before the student, or replace them by [MASK]"""


@dataclass(frozen=True)
class SpanMasker:
    """Hides `ratio` of the valid positions in spans of `mean_span` positions on average.

    The text analogue of I-JEPA's multi-block masks (Assran et al. 2023, sec. 3); `mean_span=1` hides single tokens
    (no two neighbours). Raises ConfigError for a ratio outside (0, 1) or a span below 1.
    """

    ratio: float = 0.3
    mean_span: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask ratio must lie between 0 and 1 (given: {self.ratio})")
        if not self.mean_span >= 1:
            raise ConfigError(f"mean span must be at least 1 token (given: {self.mean_span})")

    def __call__(self, valid: Tensor, generator: torch.Generator) -> Tensor:
        """valid [N] bool with at least 2 True -> hidden [N] bool with 1 <= hidden < valid."""
        positions = valid.nonzero().squeeze(1)  # [V]
        count = len(positions)
        if count < 2:
            raise ValueError("a row needs at least 2 maskable tokens; shorter ones are dropped when tokenising")
        hide = min(max(1, round(self.ratio * count)), count - 1)
        visible = count - hide
        spans = min(max(1, round(hide / self.mean_span)), visible + 1)
        lengths = composition(hide, spans, generator, at_least=1)  # [S]
        inner = spans - 1  # gaps between two spans hold at least one visible token
        gaps = composition(visible - inner, spans + 1, generator)  # [S + 1]
        gaps[1:-1] += 1
        starts = torch.cumsum(gaps[:-1], 0) + torch.cumsum(lengths, 0) - lengths  # [S]
        within = torch.arange(hide) - torch.repeat_interleave(torch.cumsum(lengths, 0) - lengths, lengths)  # [hide]
        hidden = torch.zeros_like(valid)
        hidden[positions[torch.repeat_interleave(starts, lengths) + within]] = True
        return hidden


def composition(total: int, parts: int, generator: torch.Generator, at_least: int = 0) -> Tensor:
    """A uniformly random way to write `total` as an ordered sum of `parts` integers >= at_least: [parts] int64."""
    free = total - at_least * parts
    bars = torch.randperm(free + parts - 1, generator=generator)[: parts - 1].sort().values  # stars and bars
    edges = torch.cat([bars.new_tensor([-1]), bars, bars.new_tensor([free + parts - 1])])
    return edges.diff() - 1 + at_least
