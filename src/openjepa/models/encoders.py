"""One config section for every text encoder: OpenJEPA's own from scratch, or any transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from openjepa.core.config import BaseConfig
from openjepa.core.experiment import BuildContext
from openjepa.core.layers import Layers
from openjepa.core.rates import scale_lr
from openjepa.core.vocabulary import NamedEncoder, Vocabulary
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.transformer import TextEncoder


class EncoderConfig(BaseConfig):
    """Which text encoder is trained."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"name": ()}

    name: str | None = None
    """transformers hub id or local folder; unset = OpenJEPA's own transformer with the sizes below"""
    weights: bool = True
    """start a named encoder from its pretrained weights; false = its architecture from the config alone"""
    dim: int = Field(128, ge=8)
    """width of the latents"""
    depth: int = Field(3, ge=1)
    """transformer blocks"""
    heads: int = Field(4, ge=1)
    """attention heads; must divide dim"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """in embeddings and MLPs of the own encoder"""
    max_len: int = Field(128, ge=8)
    """longest row in tokens; longer documents are split into rows"""
    lr_scale: float = Field(1.0, gt=0)
    """learning rate of the encoder relative to train.lr; a good start wants about a hundredth"""

    def named_in(self, section: str) -> NamedEncoder:
        """What its tokenizer has to fit; `section` is where this stands in the configuration."""
        return NamedEncoder(self.name, self.weights, section)


def build_encoder(
    config: EncoderConfig, vocab: Vocabulary, context: BuildContext, section: str = "encoder"
) -> TextEncoder | PretrainedEncoder:
    """The encoder of this config, with an embedding for `vocab`; `section` is where it stands in the configuration.

    A named one leaves its architecture in the assets, so a run needs no hub later.
    """
    if config.name is None:
        encoder = TextEncoder(vocab.size, config.dim, config.depth, config.heads, config.max_len, config.dropout)
    else:
        encoder = _named_encoder(config, vocab, context, f"{section}.name")
    scale_lr(encoder, config.lr_scale)
    return encoder


def _named_encoder(config: EncoderConfig, vocab: Vocabulary, context: BuildContext, setting: str) -> PretrainedEncoder:
    assert config.name is not None
    saved = context.assets / "encoder"
    if (saved / "config.json").is_file() and (context.random_init or not config.weights):
        return PretrainedEncoder(str(saved), False, config.max_len, vocab, setting)
    weights = config.weights and not context.random_init
    encoder = PretrainedEncoder(config.name, weights, config.max_len, vocab, setting)
    encoder.save_config(saved)
    return encoder


def text_layers(method: Any, batch: Any) -> dict[str, Layers]:
    """All layers of a method's `student` and `teacher` for a batch of texts with `ids` and `valid` [B, T]."""
    encoders = {"student": method.student, "teacher": method.teacher}
    return {name: Layers(one.states(batch.ids, batch.valid), batch.valid) for name, one in encoders.items()}
