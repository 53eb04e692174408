"""I-JEPA for `bench_step.py`: the recipe, and the same networks and masks as public code steps them."""

from __future__ import annotations

from typing import Any

import torch
from reference_i_jepa import ReferenceIJEPA, Sizes
from sides import Asked, Built, Recipe, Size, made, our_side, shuffled
from stepping import Read, Side

PIXELS, PATCH = 224, 16
PLACES = (PIXELS // PATCH) ** 2
IMAGES = 512  # decoded, each 150 kB
VIT_S = Size(layers=12, dim=384, heads=6, vocab=0, batch_tokens=64 * PLACES)  # 64 images, as TrainConfig's default


def ours(asked: Asked) -> Built:
    """The recipe with I-JEPA's masks, an encoder of this size, and a predictor of half its width and depth."""
    from openjepa.recipes import i_jepa

    size = asked.size
    config, experiment = made(
        i_jepa,
        asked,
        {
            "data": {"source": asked.source, "size": PIXELS, "images": IMAGES},
            "encoder": {"patch": PATCH, "dim": size.dim, "depth": size.layers, "heads": size.heads},
            "predictor": {"width": size.dim // 2, "depth": size.layers // 2, "heads": size.heads},
            "train": {**asked.train, "batch_tokens": 0, "batch_size": max(2, size.batch_tokens // PLACES)},
        },
    )

    def read(batch: Any) -> Read:
        other_part = [batch.hidden_valid] if experiment.method.two_views.pulls else []
        return Read(batch.size, [batch.context_valid, batch.valid, *other_part])

    return Built(our_side(experiment, read), experiment.train_data, config, 0)


def original(asked: Asked, built: Built) -> Side:
    """The reference's step on as many of the same images."""
    size, predictor = asked.size, built.config.predictor
    sizes = Sizes(PIXELS, PATCH, size.dim, size.layers, size.heads, predictor.width, predictor.depth, predictor.heads)
    reference = ReferenceIJEPA(sizes)
    batch_size, rows = built.config.train.batch_size, built.rows
    batches = shuffled(range(len(rows)), [1] * len(rows), batch_size)

    def step() -> Read:
        images = [rows[i].copy() for i in next(batches)]
        reference.step(images)
        whole = torch.ones(len(images), PLACES, dtype=torch.bool)  # both encoders read every patch
        return Read(len(images), [whole, whole])

    return Side(step, sum(p.numel() for p in reference.trained))


RECIPE = Recipe("image", "scenes", VIT_S, None, ours, original)
