"""Masks over the sentences of a document: `count` sentences -> hidden [count] bool (True = to be predicted).

At least one sentence is hidden and at least one stays visible, whatever the ratio. `random` is the original LANG-JEPA's
choice; `block` hides neighbours, so that less can be interpolated; `next` hides the end, as in language modelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig
from openjepa.core.errors import ConfigError

Strategy = Literal["random", "block", "next"]


class SentenceMaskConfig(BaseConfig):
    """Which sentences are hidden."""

    strategy: Strategy = "random"
    """random sentences, a contiguous block of them, or the last ones of the document"""
    ratio: float = Field(0.5, gt=0, lt=1)
    """hidden part of each document's sentences; rounded, never none and never all"""


@dataclass(frozen=True)
class SentenceMasker:
    """Hides round(ratio * count) sentences, at least 1 and at most count - 1.

    Raises ConfigError for an unknown strategy or a ratio outside (0, 1).
    """

    strategy: Strategy = "random"
    ratio: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask ratio must lie between 0 and 1 (given: {self.ratio})")
        if self.strategy not in ("random", "block", "next"):
            raise ConfigError(f"mask strategy must be random, block or next (given: {self.strategy!r})")

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        """hidden [count] bool, for a document of `count` >= 2 sentences."""
        if count < 2:
            raise ValueError("a document needs at least 2 sentences; shorter ones are dropped when rows are made")
        hide = min(max(1, round(self.ratio * count)), count - 1)
        hidden = torch.zeros(count, dtype=torch.bool)
        if self.strategy == "random":
            hidden[torch.randperm(count, generator=generator)[:hide]] = True
            return hidden
        start = count - hide
        if self.strategy == "block":
            start = int(torch.randint(count - hide + 1, (), generator=generator))
        hidden[start : start + hide] = True
        return hidden
