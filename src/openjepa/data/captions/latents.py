"""Captioned images with the latents of frozen encoders, computed once and then read from disk.

Targets are the latents of a whole image, so they are the same in every epoch, whatever is hidden; so are those of the
words of a caption. Only the visible patches differ each time, and only they are left to encode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from openjepa.core.compute import device_of
from openjepa.core.config import BaseConfig
from openjepa.data.captions.batches import CaptionCollator
from openjepa.data.captions.dataset import Captioned, CaptionedImages
from openjepa.data.captions.latent_cache import LatentCache, weights_hash
from openjepa.data.images.batches import to_float


class FrozenPart(NamedTuple):
    """A frozen network and how it encodes. `details` are the sections of the config that also determine its latents."""

    network: nn.Module
    encode: Callable[..., Tensor]  # images [B, 3, S, S], or ids and valid [B, T] -> [B, N or T, D]
    dim: int
    details: tuple[BaseConfig, ...]


class FrozenParts(NamedTuple):
    """The frozen encoders of a method, None for one that is trained."""

    vision: FrozenPart | None
    text: FrozenPart | None


def with_latents(data: CaptionedImages, collate: CaptionCollator, parts: FrozenParts) -> WithLatents | CaptionedImages:
    """`data` with the latents of its frozen encoders, read from disk; unchanged where both encoders are trained."""
    return data if parts == (None, None) else WithLatents(data, collate, parts)


class WithLatents(Dataset[Captioned]):
    """`data` with latents of its frozen parts, None for trained ones. The first `len()` computes missing ones."""

    def __init__(self, data: CaptionedImages, collate: CaptionCollator, parts: FrozenParts) -> None:
        self.data = data
        self.collate = collate
        self.targets = None if parts.vision is None else self._of_images(parts.vision)
        self.words = None if parts.text is None else self._of_captions(parts.text)

    def __len__(self) -> int:
        for latents in (self.targets, self.words):
            if latents is not None and len(self.data):
                latents[0]
        return len(self.data)

    def __getitem__(self, index: int) -> Captioned:
        row = self.data[index]
        caption_index = self.data.caption_index(index)
        words = None
        if self.words is not None and caption_index is not None:
            words = [self.words[number] for number in range(*self._first[caption_index : caption_index + 2])]
        return row._replace(latents=None if self.targets is None else self.targets[index], words=words)

    @property
    def counts(self) -> dict[str, int]:
        return self.data.counts

    @cached_property
    def _first(self) -> list[int]:
        """[N + 1] number of each image's first caption, in the order of `data.texts()`."""
        return np.cumsum([0, *map(len, self.data.captions)]).tolist()

    def _of_images(self, part: FrozenPart) -> LatentCache:
        def compute(numbers: Sequence[int]) -> list[np.ndarray]:
            images = to_float(np.stack([self.data.images[number] for number in numbers]))
            return list(_encoded(part, images))

        def lengths() -> list[int]:
            rows, columns = self.collate.images.grid
            return [rows * columns] * len(self.data)

        return LatentCache("targets", lambda: self._key(part), lengths, part.dim, compute)

    def _key(self, part: FrozenPart) -> list[Any]:
        details = [section.model_dump(mode="json") for section in part.details]
        return [self.data.images.key, self.data.split, weights_hash(part.network), details]

    def _of_captions(self, part: FrozenPart) -> LatentCache:
        texts = cache(lambda: self.collate.encode(list(self.data.texts())))

        def compute(numbers: Sequence[int]) -> list[np.ndarray]:
            ids, valid = self.collate.padded([texts()[number] for number in numbers])
            latents = _encoded(part, ids, valid)
            return [row[: len(texts()[number])] for row, number in zip(latents, numbers, strict=True)]

        def key() -> Any:
            tokens = [self.collate.tokenizer.fingerprint, self.collate.max_len]
            return [*self._key(part), tokens]

        return LatentCache("latents of captions", key, lambda: [len(ids) for ids in texts()], part.dim, compute)


def _encoded(part: FrozenPart, *inputs: Tensor) -> np.ndarray:
    """Encode inputs with a frozen part: [B, T, D] float16."""
    device = device_of(part.network)
    with torch.no_grad():
        return part.encode(*(x.to(device) for x in inputs)).to("cpu", torch.float16).numpy()
