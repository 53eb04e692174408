"""Random views of one image: how well they agree, and how well one of them predicts the others.

Views are drawn as in training, in a batch with views of held-out images, which tell what a cosine means. Agreement is
measured between embeddings of views, as users get them; the prediction is the one that health checks measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from openjepa.api import Run
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Sample
from openjepa.core.method import latents_of
from openjepa.core.seeding import generator_for
from openjepa.data.images.batches import Images, ImageViews, ViewCollator, images_at_once
from openjepa.data.images.dataset import ImageSet
from openjepa.data.pictures import image_pictures
from openjepa.demo.answers import Chance, chance_of, cosines
from openjepa.demo.held_out_images import Chosen, HeldOutImages, ImageMatch, Refused, require_chosen
from openjepa.evals.features import inner_products, unit_rows

MOST_IMAGES = 32  # of a batch


@dataclass(frozen=True)
class View:
    """One view of the image, and its mean cosine with the image's other views."""

    pixels: np.ndarray  # [S, S, 3] or [s, s, 3] uint8
    kind: str  # "global" or "local"
    cosine: float
    z: float


@dataclass(frozen=True)
class ViewsAnswer:
    """The views of an image."""

    pixels: np.ndarray  # [S, S, 3] uint8
    views: list[View]  # the global ones first
    agreement: float  # mean cosine of all pairs of them
    chance: Chance  # of its views with views of other images
    predicted: float  # cosine of the prediction from the context view with its target
    predicted_chance: Chance  # of that prediction with the targets of other images
    rank: int  # of its own target among those of all images of the batch, 1 = nearest
    candidates: int
    context: str  # which view the prediction reads, in words
    nearest: list[ImageMatch]
    nearest_chance: Chance
    note: str


class SeveralViews:
    """The panel of views; embeds the run's held-out images once, when it is made."""

    title = "Views of an image"

    def __init__(self, run: Run, collate: ViewCollator, images: ImageSet) -> None:
        self.run = run
        self.collate = collate
        self.held_out = HeldOutImages(run, images)
        rows, columns = collate.grid
        self.at_once = min(MOST_IMAGES, images_at_once(rows * columns))

    def ask(self, chosen: Chosen | Refused | None, draw: int) -> ViewsAnswer:
        """Draw views by number `draw` and compare them. Raises UserError without an image."""
        image = require_chosen(chosen)
        others = self.held_out.others(image.pixels)[: self.at_once - 1]
        batch = self.batch(image.pixels, draw, others)
        embedded = self.embedded(batch)  # [B, G + L, D]
        own = embedded[0]
        unrelated = embedded[1:].reshape(-1, embedded.shape[2])
        units = unit_rows(own)
        pairs = inner_products(units, units)  # [G + L, G + L]
        others_cosines = inner_products(units, unit_rows(unrelated))
        chance = chance_of(others_cosines, f"its views with {len(unrelated)} views of {len(others)} other images")
        count = len(own)
        means = (pairs.sum(1) - np.diag(pairs)) / (count - 1)  # [G + L]
        predicted, target = self.predict(batch)  # [B, Z] each
        found = cosines(predicted[0], target)  # [B]
        return ViewsAnswer(
            pixels=image.pixels,
            views=[
                View(pixels, kind, float(mean), chance.z(float(mean)))
                for (pixels, kind), mean in zip(_pictures(batch), means, strict=True)
            ],
            agreement=float(means.mean()),
            chance=chance,
            predicted=float(found[0]),
            predicted_chance=chance_of(found[1:], f"the prediction with the targets of {len(others)} other images"),
            rank=1 + int((found > found[0]).sum()),
            candidates=len(found),
            context="the first local view" if batch.has_local_views else "the first view",
            nearest=self.held_out.nearest(image.pixels),
            nearest_chance=self.held_out.chance,
            note=image.note,
        )

    def batch(self, pixels: np.ndarray, draw: int, others: np.ndarray) -> ImageViews:
        """Views of the image in row 0, and behind it those of other held-out images."""
        rows = [Sample(pixels, generator_for(0, "demo", "views", draw), 0)]
        rows += [
            Sample(self.held_out.pixels[number], generator_for(0, "demo", "other", number), number)
            for number in map(int, others)
        ]
        return self.collate(rows)

    def embedded(self, batch: ImageViews) -> np.ndarray:
        """The embedding of each view [B, G + L, D]."""
        parts = [self._embed(views) for views in (batch.global_views, batch.local_views) if views.shape[1]]
        return np.concatenate(parts, 1)

    def predict(self, batch: ImageViews) -> tuple[np.ndarray, np.ndarray]:
        """The predictions from the context views and their targets, each [B, Z]."""
        method = self.run.experiment.method
        compute = self.run.compute
        with evaluating(method, compute):
            found = latents_of(method, method(batch.to(compute.device)))
        return found.predicted.float().cpu().numpy(), found.target.float().cpu().numpy()

    def _embed(self, views: Tensor) -> np.ndarray:
        """views [B, V, 3, s, s] -> [B, V, D]."""
        method = self.run.experiment.method
        compute = self.run.compute
        rows, columns = self.collate.grid
        scale = views.shape[-1] / self.held_out.size  # of a local view
        images = Images(
            keys=torch.arange(views.shape[0] * views.shape[1]),
            images=views.flatten(0, 1),
            grid=(round(rows * scale), round(columns * scale)),
        )
        with evaluating(method, compute):
            vectors = method.embed(images.to(compute.device)).float().cpu().numpy()  # [B V, D]
        return vectors.reshape(*views.shape[:2], -1)


def _pictures(batch: ImageViews) -> list[tuple[np.ndarray, str]]:
    """The views of row 0 as pixels, with their kind."""
    found = []
    for views, kind in ((batch.global_views, "global"), (batch.local_views, "local")):
        if views.shape[1]:
            images = Images(keys=torch.arange(views.shape[1]), images=views[0], grid=batch.grid)
            found += [(picture.pixels, kind) for picture in image_pictures(images)]
    return found


ABOUT = (
    "The run learned that random views of one image (crops in other colours) belong together. "
    "The answer shows how well the views of this image agree, beside views of other images."
)
