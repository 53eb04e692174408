"""Retrieval between images and captions, for methods that predict whole images and captions from each other.

    image_to_text_top1, _mrr   rank of an image's caption in its pool, by cosine with the prediction from the image
    text_to_image_top1, _mrr   the other way round

Pools are 100 held-out images that have no caption in common, each with one of its captions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from openjepa.core.compute import device_of
from openjepa.core.evaluating import once_per_method
from openjepa.core.pairs import Pairs
from openjepa.core.tasks import Retrieval, Vectors
from openjepa.data.captions.batches import CaptionCollator, CaptionedBatch
from openjepa.data.captions.dataset import CaptionedImages

POOL = 100
MOST_IMAGES = 500

PairsOf = Callable[[Any, CaptionedBatch], Pairs]  # of a method


@dataclass(frozen=True)
class CaptionRetrieval:
    """Makes the two tasks of one experiment, from held-out images with their own captions."""

    held_out: CaptionedImages
    collate: CaptionCollator
    pairs: PairsOf

    def tasks(self) -> list[Retrieval]:
        """Both directions; none if no two images have distinct captions."""
        numbers = self.distinct()
        pools = pools_of(len(numbers))
        if pools.shape[1] < 2:
            return []

        answers = once_per_method(lambda method: self.answers(method, numbers[: len(pools)]))  # for both tasks

        def task(name: str) -> Retrieval:
            return Retrieval(name, pools, lambda method: answers(method)[name], measures=("top1", "mrr"))

        return [task("image_to_text"), task("text_to_image")]

    def distinct(self) -> list[int]:
        """Numbers of the first images that share no caption with one before them."""
        known: set[str] = set()
        numbers: list[int] = []
        for number in range(len(self.held_out)):
            captions = self.held_out.captions_of(number)
            if len(numbers) < MOST_IMAGES and known.isdisjoint(captions):
                numbers.append(number)
                known.update(captions)
        return numbers

    def answers(self, method: Any, numbers: list[int]) -> dict[str, Vectors]:
        """Predictions for these images and for their captions, with their targets."""
        device = device_of(method)
        parts = []
        at_once = self.collate.at_once
        for start in range(0, len(numbers), at_once):
            batch = self.collate.eval_batch(self.held_out, numbers[start : start + at_once])
            parts.append(self.pairs(method, batch.to(device)))
        pairs = Pairs(*(torch.cat(part).float().cpu().numpy() for part in zip(*parts, strict=True)))
        return {
            "image_to_text": Vectors(pairs.text_from_image, pairs.text_target),
            "text_to_image": Vectors(pairs.image_from_text, pairs.image_target),
        }


def pools_of(count: int) -> np.ndarray:
    """[N, K] int64: full pools of neighbours, once for each of their K members, that member first.

    All `count` are one pool if they are fewer than POOL; what is left beyond the last full pool is not used.
    """
    size = min(count, POOL)
    pool = np.arange(count // max(size, 1) * size).reshape(-1, 1) // max(size, 1) * size  # [N, 1] first of its pool
    member = np.arange(len(pool))[:, None]  # [N, 1]
    return pool + (member - pool + np.arange(size)) % max(size, 1)
