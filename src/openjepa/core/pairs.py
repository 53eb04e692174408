"""Pairs of images and captions, in the form that losses, retrieval tasks and networks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Captions(NamedTuple):
    """The tokens of B captions."""

    ids: Tensor  # [B, T] int64
    valid: Tensor  # [B, T] bool, False on padding
    states: Tensor | None = None  # [B, T, E] the text encoder's latents of them, where they are cached


class Pairs(NamedTuple):
    """Latents of B images with a caption each, and the predictions of each from the other. All [B, Z]."""

    image: Tensor  # by the trained networks
    text: Tensor
    image_from_text: Tensor  # predictions
    text_from_image: Tensor
    image_target: Tensor  # by the target encoders without gradient, or `image` and `text` themselves
    text_target: Tensor


PairLoss = Callable[[Pairs, int], dict[str, Tensor]]  # pairs, draw -> terms, each a scalar with a graph
