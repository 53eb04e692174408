"""The run's held-out images: examples to click, and the nearest ones to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.data.captions.dataset import CaptionedImages
from openjepa.data.images.dataset import ImageSet
from openjepa.demo.answers import Chance, cosines
from openjepa.demo.uploads import read_upload
from openjepa.evals.similarity import random_pairs

COUNT = 256  # images
LEAST = 3  # with fewer there are no random pairs
EXAMPLES = 8
NEIGHBOURS = 6


@dataclass(frozen=True)
class Chosen:
    """The image that is asked about."""

    pixels: np.ndarray  # [S, S, 3] uint8, as the run reads it
    number: int | None = None  # of a held-out image, None = uploaded
    note: str = ""  # what was mended in an upload


@dataclass(frozen=True)
class Refused:
    """Why an uploaded file is no image that can be asked about."""

    reason: str


@dataclass(frozen=True)
class ImageMatch:
    """A held-out image and the cosine of its embedding with that of the image asked about."""

    pixels: np.ndarray  # [S, S, 3] uint8
    caption: str  # its first caption, or ""
    cosine: float
    z: float


class HeldOutImages:
    """The first C held-out images of a run, embedded once."""

    def __init__(self, run: Run, images: ImageSet | CaptionedImages) -> None:
        self.run = run
        self.captions: Sequence[Sequence[str]] = images.captions  # none where the data has none
        pictures = images.images if isinstance(images, CaptionedImages) else images
        self.pixels = np.array(pictures.pixels[:COUNT])  # [C, S, S, 3] uint8
        if len(self.pixels) < LEAST:
            raise UserError(
                f"{run.path} has {len(self.pixels)} held-out images; the page compares with {LEAST} or more"
            )
        self.vectors = run.encode(list(self.pixels))  # [C, D]
        mean, std = random_pairs(self.vectors, generator_for(0, "demo", "random pairs"))
        self.chance = Chance(mean, std, f"random pairs of {len(self.pixels)} held-out images")

    @property
    def size(self) -> int:
        """Side in pixels of an image as the run reads it."""
        return self.pixels.shape[1]

    def examples(self) -> list[np.ndarray]:
        """Images to click, each [S, S, 3] uint8; number i is held-out image i."""
        return list(self.pixels[:EXAMPLES])

    def example(self, number: int) -> Chosen:
        """A held-out image. Raises UserError if there is none of that number."""
        if not 0 <= number < len(self.pixels):
            raise UserError(f"there is no held-out image {number}; choose one of {len(self.pixels)}")
        return Chosen(self.pixels[number], number)

    def upload(self, data: bytes) -> Chosen:
        """The image in an uploaded file. Raises UserError as `read_upload` does."""
        pixels, note = read_upload(data, self.size)
        return Chosen(pixels, None, note)

    def caption(self, number: int | None) -> str:
        """The first caption of a held-out image, or ""."""
        return next(iter(self.captions[number]), "") if number is not None else ""

    def others(self, pixels: np.ndarray) -> np.ndarray:
        """[C'] int64, numbers of the held-out images that are not this one."""
        return np.flatnonzero((self.pixels != pixels).any((1, 2, 3)))

    def nearest(self, pixels: np.ndarray) -> list[ImageMatch]:
        """The other held-out images with the highest cosines, highest first."""
        others = self.others(pixels)
        found = cosines(self.run.encode([pixels])[0], self.vectors[others])  # [C']
        order = np.argsort(-found, kind="stable")[:NEIGHBOURS]
        return [
            ImageMatch(
                self.pixels[others[i]], self.caption(int(others[i])), float(found[i]), self.chance.z(float(found[i]))
            )
            for i in order
        ]


def require_chosen(chosen: Chosen | Refused | None) -> Chosen:
    """Raises UserError if no image was chosen yet, or if the file uploaded last is none."""
    if isinstance(chosen, Refused):
        raise UserError(chosen.reason)
    if chosen is None:
        raise UserError("there is no image yet; upload one, or click an example")
    return chosen
