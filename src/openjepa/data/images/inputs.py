"""Images that a user gives, as batches that an encoder can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openjepa.core.embedding import Embedding, EncoderInputs, Pooling
from openjepa.core.masks import Grid
from openjepa.data.images.batches import Images, clean


@dataclass(frozen=True)
class ImageInputs:
    """How a recipe reads images for embedding: scaled to a square, cut into the patches of a grid."""

    pixels: int  # side of the square
    grid: Grid  # rows and columns of patches

    def __call__(self, images: Sequence[Any]) -> Images:
        """Paths, bytes, Pillow images or uint8 arrays -> batch with nothing hidden. Raises UserError for others."""
        return clean(images, self.pixels, self.grid)


def image_embedding(inputs: ImageInputs, pooling: Pooling = "mean", note: str = "") -> Embedding:
    """Vectors of whole images; the fields are those of `Embedding`."""
    return Embedding(inputs, whole_images, pooling=pooling, note=note)


def whole_images(batch: Images) -> EncoderInputs:
    """The images with all their patches, as vision encoders read them."""
    return EncoderInputs((batch.images,))
