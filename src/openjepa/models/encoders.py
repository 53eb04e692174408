"""One config section for every text encoder: OpenJEPA's own from scratch, or any transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from openjepa.core.config import BaseConfig
from openjepa.core.experiment import BuildContext
from openjepa.core.lr_scale import scale_lr
from openjepa.core.remarks import remark
from openjepa.core.vocabulary import NamedEncoder, Vocabulary
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.transformer import TextEncoder

MAX_LEN = 128  # tokens that OpenJEPA's own encoder reads if nothing is set


class EncoderConfig(BaseConfig):
    """Which text encoder is trained."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"name": ()}
    FIRST = ("name", "dim", "depth", "heads", "max_len")

    name: str | None = None
    """transformers hub id or local folder, unset = OpenJEPA's own transformer with the sizes below"""
    weights: bool = True
    """start a named encoder from its pretrained weights; false = only its architecture, from its config"""
    dim: int = Field(128, ge=8)
    """width of the latents"""
    depth: int = Field(3, ge=1, le=512)
    """transformer blocks"""
    heads: int = Field(4, ge=1)
    """attention heads; must divide dim"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """in embeddings and MLPs of OpenJEPA's encoder"""
    max_len: int | None = Field(None, ge=8)
    """longest row in tokens, longer documents are split into rows; unset = a named encoder's limit, 128 else"""
    lr_scale: float = Field(1.0, gt=0)
    """learning rate of the encoder relative to train.lr; about 0.01 suits pretrained weights"""

    def named_in(self, section: str) -> NamedEncoder:
        """The encoder that its tokenizer has to fit; `section` is where this stands in the configuration."""
        return NamedEncoder(self.name, self.weights, section)


def build_encoder(
    config: EncoderConfig, vocab: Vocabulary, context: BuildContext, section: str = "encoder"
) -> TextEncoder | PretrainedEncoder:
    """The encoder of this config, with an embedding for `vocab`; `section` is where it stands in the configuration.

    A named one is saved in the assets, with its weights if it starts from them: a run needs no hub and no other folder.
    """
    if config.name is None:
        max_len = config.max_len or MAX_LEN
        encoder = TextEncoder(vocab.size, config.dim, config.depth, config.heads, max_len, config.dropout)
    else:
        encoder = _named_encoder(config, vocab, context, section)
    scale_lr(encoder, config.lr_scale)
    return encoder


def _named_encoder(config: EncoderConfig, vocab: Vocabulary, context: BuildContext, section: str) -> PretrainedEncoder:
    assert config.name is not None
    weights = config.weights and not context.random_init
    saved = context.kept("encoder", weights)
    encoder = PretrainedEncoder(saved or config.name, weights, config.max_len, vocab, f"{section}.name")
    if saved is None:
        encoder.keep(context.assets / "encoder", weights)
        if encoder.max_len < encoder.own_max_len:
            remark(
                f"{section}.max_len={config.max_len}: documents are split into rows of {encoder.max_len} tokens, "
                f"though {config.name} reads {encoder.own_max_len}; {section}.max_len=null takes its limit"
            )
    return encoder
