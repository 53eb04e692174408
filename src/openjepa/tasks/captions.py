"""Tasks that measure how much captions help to predict hidden patches.

On held-out images, with the same patches hidden throughout:

    captions_skill_right      skill with the image's own captions
    captions_skill_shuffled   with those of another image: a method that reads no text has the same skill
    captions_skill_none       with no text at all; unusual for a method that was trained with captions
                              (these two are controls: no gain or loss is claimed of them)
    captions_gap              right minus shuffled: the gain from the content of the words

Skill is 1 - error / error of the best constant, over all hidden patches; an image's item is its share of that, so that
the mean over images is the skill and the scorecard's interval is over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from openjepa.core.compute import device_of
from openjepa.core.method import Latents, Method
from openjepa.core.tasks import Answers, Prediction, Task
from openjepa.data.captions.batches import CaptionCollator
from openjepa.data.captions.dataset import CaptionDataConfig, CaptionedImages, TextKind
from openjepa.data.images.sources import WORLD
from openjepa.tasks.caption_retrieval import CaptionRetrieval, PairsOf
from openjepa.tasks.objects import object_tasks

MOST_IMAGES = 512  # held-out images
NAMES: dict[TextKind, str] = {"caption": "right", "shuffled": "shuffled", "none": "none"}


@dataclass(frozen=True)
class CaptionTasks:
    """Makes the tasks of one experiment."""

    data: CaptionDataConfig
    held_out: CaptionedImages
    collate: CaptionCollator
    pairs: PairsOf | None = None  # of a method that predicts whole images and whole captions from each other

    def all(self) -> list[Task]:
        """Make all tasks: whether captions help, and probes.

        The scenes world has probes of its factors, on combinations no model was trained on; photographs one of the kind
        of the largest object, where files of objects are given.
        """
        tasks: list[Task] = [Prediction("captions", self.ask)]
        if self.pairs is not None:
            tasks += CaptionRetrieval(self.held_out.with_captions("caption"), self.collate, self.pairs).tasks()
        if self.data.source.strip() == WORLD:
            from openjepa.data.worlds.scenes import factor_tasks

            tasks += factor_tasks(pixels=self.data.size)
        elif self.data.object_files is not None:
            train = CaptionedImages(self.data, "train").images
            tasks += object_tasks(train, self.held_out.images, self.data.object_files, self.data.probe_images)
        return tasks

    def ask(self, method: Method) -> dict[str, Answers]:
        """Skill of each image with each text, and the gap."""
        items = {text: self.skills(method, text) for text in get_args(TextKind)}  # [N] each
        answers = {
            f"captions_skill_{NAMES[text]}": Answers(skills, 0.0, control=text != "caption")
            for text, skills in items.items()
        }
        return answers | {"captions_gap": Answers(items["caption"] - items["shuffled"], 0.0)}

    def skills(self, method: Method, text: TextKind) -> np.ndarray:
        """[N] float64, the share of each held-out image in the skill with this text; the mean is the skill."""
        images = self.held_out.with_captions(text)
        count = min(len(images), MOST_IMAGES)
        device = device_of(method)
        parts = []
        at_once = self.collate.at_once
        for start in range(0, count, at_once):
            batch = self.collate.eval_batch(images, range(start, min(start + at_once, count)))
            rows = batch.hidden_valid.nonzero()[:, 0]  # [M]
            parts.append((method(batch.to(device)).latents, rows, batch.size))
        return image_skills(parts)


def image_skills(parts: Sequence[tuple[Latents, Tensor, int]]) -> np.ndarray:
    """Latents of batches, the image of each [M] and their numbers of images -> [N], an item an image.

    The mean of the items is the skill.
    """
    targets = torch.cat([latents.target.cpu() for latents, _, _ in parts]).double()
    centre = targets.mean(0)
    constant = float((targets - centre).square().sum()) / sum(size for *_, size in parts)  # error an image
    errors: list[Tensor] = []
    for latents, rows, size in parts:
        error = (latents.predicted.cpu().double() - latents.target.cpu().double()).square().sum(1)  # [M]
        errors.append(error.new_zeros(size).index_add_(0, rows.cpu(), error))
    return (1 - torch.cat(errors) / max(constant, 1e-12)).numpy()
