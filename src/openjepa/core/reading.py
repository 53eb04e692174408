"""What a readout needs of a recipe: latents of the hidden texts of a batch, with their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class TextLatents:
    """The M hidden texts of one batch: sentences of a document, or the answer to each question."""

    target: Tensor  # [M, D] their latents by the target encoder
    predicted: Tensor  # [M, D] the same latents, predicted from the context only
    ids: Tensor  # [M, L] int64 their tokens, without special ones; real tokens come first
    valid: Tensor  # [M, L] bool, False on padding


@dataclass(frozen=True)
class ReadoutSource:
    """How to get latents and their texts from a batch, and how to decode tokens."""

    read: Callable[[Any, Any], TextLatents]  # (method, batch); called in eval mode and without gradients
    decode: Callable[[Sequence[int]], str]
    vocab: int  # ids are below it
    # whether a decoded text says the same as the right one; None = only if it is that text, token by token
    same: Callable[[str, str], bool] | None = None
