"""Experiments on images, and what can be asked of them: the factors of the scenes world, or a source's labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from openjepa.core.config import TrainConfig
from openjepa.core.experiment import Experiment
from openjepa.core.masks import Grid
from openjepa.core.method import Method
from openjepa.core.tasks import Classification, Task, classification
from openjepa.data.image_batches import MaskedImageCollator, ViewCollator
from openjepa.data.image_inputs import ImageInputs, image_embedding
from openjepa.data.image_records import WORLD, ImageDataConfig
from openjepa.data.images import ImageSet, raw_pixels, train_and_eval

LEAST_TESTED = 1000  # held-out images that probes are asked about

Labelled = tuple[np.ndarray, str]  # [S, S, 3] uint8, and what it shows


class ImageConfig(Protocol):
    """What the configuration of a recipe on images has in common with others."""

    @property
    def data(self) -> ImageDataConfig: ...

    @property
    def train(self) -> TrainConfig: ...


def image_experiment(
    method: Method, config: ImageConfig, grid: Grid, collate: MaskedImageCollator | ViewCollator, **parts: Any
) -> Experiment:
    """An experiment on the images of `config.data`, cut into the patches of `grid`: batches by `collate`, usual tasks.

    `parts` are other fields of the experiment.
    """
    train_data, eval_data = train_and_eval(config.data)
    pixels = config.data.size
    return Experiment(
        method=method,
        train_data=train_data,
        eval_data=eval_data,
        collate=collate,
        embedding=image_embedding(ImageInputs(pixels, grid)),
        train=config.train,
        tasks=lambda: image_tasks(config.data),
        baselines={"pixels": lambda inputs: raw_pixels(inputs, pixels)},
        pictures=collate.pictures,
        **parts,
    )


def image_tasks(cfg: ImageDataConfig) -> list[Task]:
    """What can be asked of an encoder trained on this source.

    The scenes world asks for its factors, on combinations no model was trained on. Other sources ask for their labels:
    probes learn on the first `data.probe_images` labelled training images, and the first held-out ones test them.
    """
    if cfg.source.strip() == WORLD:
        from openjepa.data.worlds.scenes import factor_tasks

        return list(factor_tasks(pixels=cfg.size))
    learnt, asked = (_labelled(images) for images in train_and_eval(cfg))
    most_asked = max(LEAST_TESTED, cfg.probe_images // 4)
    return [*label_tasks(cfg.label or "folder", learnt[: cfg.probe_images], asked, most_asked)]


def label_tasks(
    name: str, learnt: Sequence[Labelled], asked: Sequence[Labelled], most_asked: int | None = None
) -> list[Classification]:
    """A probe that learns the labels of `learnt`; none if these are fewer than two, or no image is left to test it.

    It is tested on the first `most_asked` (None: all) of `asked` whose label it could learn.
    """
    task = classification(name, learnt, asked, most_asked)
    return [task] if len(task.classes) > 1 and task.test else []


def _labelled(images: ImageSet) -> list[Labelled]:
    return [(image, label) for image, label in zip(images.pixels, images.labels, strict=True) if label is not None]
