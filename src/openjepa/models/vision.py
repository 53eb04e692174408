"""One config section for every vision encoder: OpenJEPA's own from scratch, or a ViT of the transformers library."""

from __future__ import annotations

from pydantic import Field

from openjepa.core.experiment import BuildContext
from openjepa.core.rates import scale_lr
from openjepa.models.vit import ViT, ViTConfig


class VisionConfig(ViTConfig):
    """Which image encoder, and how fast it learns."""

    name: str | None = None
    """transformers hub id or local folder of a ViT; unset = OpenJEPA's own with the sizes below"""
    lr_scale: float = Field(1.0, gt=0)
    """learning rate of the encoder relative to train.lr; a good start wants about a hundredth"""


def build_vision(config: VisionConfig, pixels: int, context: BuildContext) -> ViT:
    """The encoder of this config, for images of `pixels` x `pixels`."""
    encoder = ViT(config, pixels)
    scale_lr(encoder, config.lr_scale)
    return encoder
