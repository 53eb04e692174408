"""The held-out images nearest to an image: the panel of runs on images that neither hide patches nor draw views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openjepa.api import Run
from openjepa.data.captions.dataset import CaptionedImages
from openjepa.data.images.dataset import ImageSet
from openjepa.demo.answers import Chance
from openjepa.demo.held_out_images import Chosen, HeldOutImages, ImageMatch, Refused, require_chosen


@dataclass(frozen=True)
class SimilarImagesAnswer:
    """An image and its neighbours."""

    pixels: np.ndarray  # [S, S, 3] uint8
    nearest: list[ImageMatch]
    nearest_chance: Chance
    note: str


class SimilarImages:
    """The panel of similar images; embeds the run's held-out images once, when it is made."""

    title = "Similar images"

    def __init__(self, run: Run, images: ImageSet | CaptionedImages) -> None:
        self.held_out = HeldOutImages(run, images)

    def ask(self, chosen: Chosen | Refused | None) -> SimilarImagesAnswer:
        """Find the nearest held-out images. Raises UserError without an image."""
        image = require_chosen(chosen)
        nearest = self.held_out.nearest(image.pixels)
        return SimilarImagesAnswer(image.pixels, nearest, self.held_out.chance, image.note)


ABOUT = "Each image gets one vector. Two images are similar if their cosine is clearly above those of random pairs."
