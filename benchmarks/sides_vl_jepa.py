"""VL-JEPA for `bench_step.py`: steps that read what frozen encoders said from disk, and steps that ask them again.

Both sides are the recipe, with the same encoders and masks. Filling the cache is no part of a step: it is what the
first epoch pays once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sides import Asked, Built, Recipe, Size, made, our_side
from stepping import Read, Side
from vl_parts import PATCH, make_encoders

BASE = Size(layers=12, dim=768, heads=12, vocab=30_522, batch_tokens=4 * 196)  # ViT-B/16 and BERT-base; batch of 4
PIXELS = 224
TOY_PIXELS = 48
IMAGES = 24  # of the scenes world; an epoch repeats soon, and an image read again costs what a new one costs


def side(asked: Asked, cache: bool) -> Built:
    """The recipe with its caches, or without."""
    from openjepa.recipes import vl_jepa

    size = asked.size
    pixels = PIXELS if size.dim == BASE.dim else TOY_PIXELS
    folder = asked.folder / "encoders"
    named = make_encoders(folder, size.layers, size.dim, size.heads, size.vocab, pixels)
    batch_size = min(max(1, size.batch_tokens // (pixels // PATCH) ** 2), IMAGES // 2)
    config, experiment = made(
        vl_jepa,
        replace(asked, overrides=[*named, "mask.strategy=random", *asked.overrides]),
        {
            "data": {"source": asked.source, "images": IMAGES, "eval_fraction": 0.2},
            "train": {**asked.train, "batch_tokens": 0, "batch_size": batch_size},
            "cache": cache,
        },
    )
    len(experiment.train_data)  # ty: ignore[invalid-argument-type]  - fills the cache

    def read(batch: Any) -> Read:
        return Read(batch.size, [batch.context_valid, batch.text_valid])

    return Built(our_side(experiment, read), experiment.train_data, config, size.vocab)


def ours(asked: Asked) -> Built:
    """With the caches."""
    return side(asked, cache=True)


def original(asked: Asked, built: Built) -> Side:
    """Without: every step encodes whole images and captions again, in our precision."""
    return side(replace(asked, precision=built.config.train.precision), cache=False).side


RECIPE = Recipe("image", "scenes", BASE, None, ours, original)
