"""One config section for every decoder: OpenJEPA's own from scratch, or any language model of transformers."""

from __future__ import annotations

from openjepa.core.experiment import BuildContext
from openjepa.core.lr_scale import scale_lr
from openjepa.core.vocabulary import Vocabulary
from openjepa.models.decoder import Decoder, DecoderConfig
from openjepa.models.pretrained_decoder import PretrainedDecoder


def build_decoder(
    config: DecoderConfig, vocab: Vocabulary, context: BuildContext, section: str = "decoder"
) -> Decoder | PretrainedDecoder:
    """The decoder of this config, with an embedding for `vocab`; `section` is where it stands in the configuration.

    A named one is saved in the assets, with its weights if it starts from them: a run needs no hub and no other folder.
    """
    decoder = Decoder(config, vocab.size) if config.name is None else _named_decoder(config, vocab, context, section)
    scale_lr(decoder, config.lr_scale)
    return decoder


def _named_decoder(config: DecoderConfig, vocab: Vocabulary, context: BuildContext, section: str) -> PretrainedDecoder:
    assert config.name is not None
    weights = config.weights and not context.random_init
    saved = context.kept("decoder", weights)
    decoder = PretrainedDecoder(saved or config.name, weights, config.max_len, vocab, section)
    if saved is None:
        decoder.keep(context.assets / "decoder", weights)
    if config.lora.rank:
        decoder.adapt(config.lora, f"{section}.lora")
    return decoder
