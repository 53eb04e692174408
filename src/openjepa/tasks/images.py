"""What can be asked of an encoder of images: the factors of the scenes world, or a source's labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openjepa.core.tasks import Classification, Task, classification
from openjepa.data.images.dataset import ImageSet, train_and_eval
from openjepa.data.images.sources import WORLD, ImageDataConfig

LEAST_TESTED = 1000  # held-out images that probes are asked about

Labelled = tuple[np.ndarray, str]  # [S, S, 3] uint8, and what it shows


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
