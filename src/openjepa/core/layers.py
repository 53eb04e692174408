"""All that an encoder knows of a batch: its latents of every place, layer by layer. An audit reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layers:
    """Latents of one encoder."""

    states: Sequence[Tensor]  # layers x [B, T, D]: what the trunk reads first, the encoder's output last
    valid: Tensor  # [B, T] bool, False on padding
