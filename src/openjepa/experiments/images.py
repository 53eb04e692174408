"""The usual experiment on images: decoded images, batches, the embedding of an image, and its tasks."""

from __future__ import annotations

from typing import Any, Protocol

from openjepa.core.config import TrainConfig
from openjepa.core.experiment import Experiment
from openjepa.core.masks import Grid
from openjepa.core.method import Method
from openjepa.data.images.batches import MaskedImageCollator, ViewCollator
from openjepa.data.images.dataset import raw_pixels, train_and_eval
from openjepa.data.images.inputs import ImageInputs, image_embedding
from openjepa.data.images.sources import ImageDataConfig
from openjepa.tasks.images import image_tasks


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
