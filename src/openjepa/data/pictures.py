"""Rows of texts and images for display: `core.picture` of every batch that has `ids` or `images`."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import numpy as np
from torch import Tensor

from openjepa.core.masks import Grid
from openjepa.core.picture import Patches, Pieces
from openjepa.data.tokenizers.choice import TextTokenizer


class HasIds(Protocol):
    """A batch of token rows."""

    @property
    def ids(self) -> Tensor: ...  # [B, T] int64


class HasImages(Protocol):
    """A batch of images, cut into patches."""

    @property
    def images(self) -> Tensor: ...  # [B, 3, H, W] in [-1, 1]

    @property
    def grid(self) -> Grid: ...  # rows, columns of the patches


def text_pictures(tokenizer: TextTokenizer, batch: HasIds) -> list[Pieces]:
    """The texts of a batch, token by token; special tokens by their names."""

    @cache
    def piece(token: int) -> str:
        return token_text(tokenizer, token)

    return [Pieces([piece(token) for token in row]) for row in batch.ids.tolist()]


def token_text(tokenizer: TextTokenizer, token: int) -> str:
    """Text of a token within a text, with a space in front where it begins a word."""
    name = tokenizer.backend.id_to_token(token) or ""
    decoder = tokenizer.backend.decoder
    if token in tokenizer.special_ids or decoder is None:
        return f" {name}"
    return decoder.decode(["a", name]).removeprefix("a")  # decoders leave the space before a first token out


def image_pictures(batch: HasImages) -> list[Patches]:
    """The images of a batch as the networks read them: augmented, if the recipe augments."""
    pixels = ((batch.images.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255)  # [B, H, W, 3]
    return [Patches(image, batch.grid) for image in pixels.numpy().astype(np.uint8)]
