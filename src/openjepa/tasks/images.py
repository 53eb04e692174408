"""Tasks for encoders of images: the factors of the scenes world, or a source's labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openjepa.core.tasks import Classification, Task, classification
from openjepa.data.images.dataset import ImageSet, train_and_eval
from openjepa.data.images.sources import WORLD, ImageDataConfig

LEAST_TESTED = 1000  # held-out images that probes are tested on

Labelled = tuple[np.ndarray, str]  # [S, S, 3] uint8, and what it shows


def image_tasks(cfg: ImageDataConfig) -> list[Task]:
    """Tasks for an encoder trained on this source.

    The scenes world has probes of its factors, on combinations no model was trained on; other sources of their labels,
    fitted on the first `data.probe_images` labelled training images and tested on the first held-out ones.
    """
    if cfg.source.strip() == WORLD:
        from openjepa.data.worlds.scenes import factor_tasks

        return list(factor_tasks(pixels=cfg.size))
    train, test = (_labelled(images) for images in train_and_eval(cfg))
    most_tested = max(LEAST_TESTED, cfg.probe_images // 4)
    return [*label_tasks(cfg.label or "folder", train[: cfg.probe_images], test, most_tested)]


def label_tasks(
    name: str, train: Sequence[Labelled], test: Sequence[Labelled], most_tested: int | None = None
) -> list[Classification]:
    """A probe of the labels of `train`; none if these are fewer than two, or no image is left to test it.

    It is tested on the first `most_tested` (None: all) of `test` whose label it was fitted on.
    """
    task = classification(name, train, test, most_tested)
    return [task] if len(task.classes) > 1 and task.test else []


def _labelled(images: ImageSet) -> list[Labelled]:
    return [(image, label) for image, label in zip(images.pixels, images.labels, strict=True) if label is not None]
