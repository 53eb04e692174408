"""Next-token baseline: predict every token from those before it (GPT, Radford et al. 2018), on a text JEPA's encoder.

The encoder reads under a causal mask, in training and when it embeds; the mean of its latents is the text's embedding,
as in T-JEPA. The second half of each text counts as hidden, so that the leak audit can test whether the predictions up
to there depend on it; training predicts all tokens but the first.

Health is measured on the head's output embeddings, for the hidden half: the prediction is the expected embedding under
the predicted distribution, the target that of the true token, the copy that of the token before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.embedding import Embedding, EncoderInputs
from openjepa.core.encoder import Encoder
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Latents, Method, StepOutput
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.text.masked import MaskedText, MaskedTextCollator
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import text_experiment, tokenizer_for
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.transformer import mean_pool
from openjepa.objectives.tokens import TokenHead


class Config(BaseConfig):
    """Everything that defines a next-token run."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=4000)
    encoder: EncoderConfig = EncoderConfig(depth=1, max_len=128)
    train: TrainConfig = TrainConfig(
        steps=1150,
        batch_tokens=4096,
        batch_size=128,
        lr=3e-3,
        precision="bf16-mixed",
        threads=1,
        workers=1,
    )


class NextToken(Method[MaskedText]):
    """A causal encoder and a token head."""

    def __init__(self, config: Config, vocab: Vocabulary, context: BuildContext) -> None:
        super().__init__()
        self.student = build_encoder(config.encoder, vocab, context)
        self.head = TokenHead(self.student.dim, vocab.size)

    def read(self, batch: MaskedText) -> Tensor:
        """Latents [B, T, D], each from its token and those before it."""
        return self.student(*causal_inputs(batch).arguments)

    def forward(self, batch: MaskedText) -> StepOutput:
        states = self.read(batch)  # [B, T, D]
        follows = batch.valid[:, 1:]  # [B, T - 1]
        loss = self.head(states[:, :-1][follows], batch.ids[:, 1:][follows])
        if self.training:  # expected embeddings would cost a third more of the softmax
            return StepOutput({"tokens": loss})
        hidden = batch.hidden[:, 1:]  # [B, T - 1]
        target = self.head.embeddings(batch.ids[:, 1:][hidden])  # [M, D]
        return StepOutput({"tokens": loss}, Latents(self.head.expected(states[:, :-1][hidden]), target))

    def inspect(self, batch: MaskedText) -> Inspection:
        hidden = batch.hidden[:, 1:]  # [B, T - 1]
        rows, before = hidden.nonzero().unbind(1)  # [M]
        return Inspection(rows, before + 1, copied=self.head.embeddings(batch.ids[:, :-1][hidden]))

    def predict_from_context(self, batch: MaskedText) -> Tensor:
        """Predictions of the tokens of each row up to its first hidden one, except the row's first token."""
        follows = batch.valid[:, 1:] & ~batch.hidden[:, :-1]  # [B, T - 1], tokens behind a visible one
        return self.head.expected(self.read(batch)[:, :-1][follows])

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student}

    def embed(self, batch: MaskedText) -> Tensor:
        return mean_pool(self.read(batch), batch.valid)


def causal_inputs(batch: MaskedText) -> EncoderInputs:
    """The encoder's inputs: all tokens, under a causal mask."""
    return EncoderInputs((batch.ids, causal_mask(batch.valid)), batch.valid)


def causal_mask(valid: Tensor) -> Tensor:
    """valid [B, T] -> [B, T, T]: each token may attend to the real ones up to itself."""
    length = valid.shape[1]
    return valid[:, None, :] & torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()


def second_half(valid: Tensor, generator: torch.Generator) -> Tensor:
    """valid [N] with at least 2 True -> hidden [N]: every position from the middle of the valid ones on.

    `generator` is part of a masker's signature; nothing is drawn.
    """
    positions = valid.nonzero().squeeze(1)
    hidden = torch.zeros_like(valid)
    hidden[positions[(len(positions) + 1) // 2 :]] = True
    return hidden


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    tokenizer = tokenizer_for(config, config.encoder.named_in("encoder"), context)
    method = NextToken(config, tokenizer.vocabulary, context)
    max_len = method.student.max_len
    collate = MaskedTextCollator(tokenizer, second_half)
    inputs = collate.inputs(max_len)
    return text_experiment(
        method,
        config,
        rows=TextRows(tokenizer, max_len),
        collate=collate,
        inputs=inputs,
        embedding=Embedding(inputs, causal_inputs, causal=True),
    )
