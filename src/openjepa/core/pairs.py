"""Images and captions that belong together, as a loss, a retrieval task and the networks between them agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Captions(NamedTuple):
    """The tokens of B captions."""

    ids: Tensor  # [B, T] int64
    valid: Tensor  # [B, T] bool, False on padding
    states: Tensor | None = None  # [B, T, E] the text encoder's latents of them, where these are known already


class Pairs(NamedTuple):
    """Latents of B images with a caption each, and what is predicted of either from the other. All [B, Z]."""

    image: Tensor  # by the networks that learn
    text: Tensor
    image_from_text: Tensor  # predictions
    text_from_image: Tensor
    image_target: Tensor  # by the target encoders without gradient, or `image` and `text` themselves
    text_target: Tensor


PairLoss = Callable[[Pairs, int], dict[str, Tensor]]  # pairs, draw -> terms, each a scalar with a graph
