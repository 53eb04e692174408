"""One config section for every vision encoder: OpenJEPA's own from scratch, or a ViT of the transformers library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from openjepa.core.experiment import BuildContext
from openjepa.core.lr_scale import scale_lr
from openjepa.models.pretrained_vision import PretrainedViT
from openjepa.models.vit import ViT, ViTConfig


class VisionConfig(ViTConfig):
    """Which image encoder."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"name": ()}
    FIRST = ("name", "patch", "dim", "depth", "heads")

    name: str | None = None
    """transformers hub id or local folder of a ViT; unset = OpenJEPA's own with the sizes below"""
    weights: bool = True
    """start a named encoder from its pretrained weights; false = only its architecture, from its config"""
    lr_scale: float = Field(1.0, gt=0)
    """learning rate of the encoder relative to train.lr; about 0.01 suits pretrained weights"""


def build_vision(config: VisionConfig, pixels: int, context: BuildContext) -> ViT | PretrainedViT:
    """The encoder of this config, for images of `pixels` x `pixels`.

    A named one is saved in the assets, with its weights if it starts from them: a run needs no hub and no other folder.
    """
    encoder = ViT(config, pixels) if config.name is None else _named(config.name, config, pixels, context)
    scale_lr(encoder, config.lr_scale)
    return encoder


def _named(name: str, config: VisionConfig, pixels: int, context: BuildContext) -> PretrainedViT:
    weights = config.weights and not context.random_init
    saved = context.kept("vision", weights)
    encoder = PretrainedViT(saved or name, pixels, weights)
    if saved is None:
        encoder.keep(context.assets / "vision", weights)
    return encoder
