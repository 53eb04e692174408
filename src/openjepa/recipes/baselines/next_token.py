"""Next-token baseline: predict every token from those before it (GPT, Radford et al. 2018), on a text JEPA's encoder.

The encoder reads under a causal mask, in training and when it embeds; the mean of its latents is the text's embedding,
as in T-JEPA. The second half of each text counts as hidden, so that the audit can ask whether the predictions up to
there read any of it; training predicts all tokens but the first.

Health is read in the head's space of output embeddings, on the hidden half: the prediction is the expected embedding
under the predicted distribution, the target that of the true token, the copy that of the token before it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Latents, Method, StepOutput
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.masked_text import MaskedText, MaskedTextCollator
from openjepa.data.sources import DataConfig
from openjepa.data.text import TextRows, TokenizerConfig, load_or_train, text_tasks, train_and_eval
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.transformer import mean_pool
from openjepa.objectives.tokens import TokenHead


class Config(BaseConfig):
    """Everything that defines a next-token run."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    encoder: EncoderConfig = EncoderConfig()
    train: TrainConfig = TrainConfig()


class NextToken(Method[MaskedText]):
    """An encoder that looks back only, and a token head."""

    def __init__(self, config: Config, vocab: Vocabulary, context: BuildContext) -> None:
        super().__init__()
        self.vocab = vocab.size
        self.student = build_encoder(config.encoder, vocab, context)
        self.head = TokenHead(self.student.dim, vocab.size)

    def read(self, batch: MaskedText) -> Tensor:
        """Latents [B, T, D], each of a token and of those before it."""
        return self.student(batch.ids, looking_back(batch.valid))

    def forward(self, batch: MaskedText) -> StepOutput:
        states, asked = self.read(batch), batch.valid[:, 1:]  # [B, T, D], [B, T - 1]
        loss = self.head(states[:, :-1][asked], batch.ids[:, 1:][asked])
        return StepOutput(loss, self._latents(batch, states), {"tokens": loss.detach()})

    def _latents(self, batch: MaskedText, states: Tensor) -> Latents:
        pooled = mean_pool(states.detach(), batch.valid)  # [B, D]
        if self.training:  # none are made: they would cost a third more of the softmax
            none = pooled.new_zeros(0, pooled.shape[-1])
            return Latents(none, none, pooled)
        asked = batch.hidden[:, 1:]  # [B, T - 1]
        rows, before = asked.nonzero().unbind(1)  # [M]
        return Latents(
            predicted=self.head.expected(states[:, :-1][asked]),
            target=self.head.embeddings(batch.ids[:, 1:][asked]),
            context=pooled,
            rows=rows,
            places=before + 1,
            copied=self.head.embeddings(batch.ids[:, :-1][asked]),
        )

    def predict_from_context(self, batch: MaskedText) -> Tensor:
        """Of every token up to the first hidden one of its row, but the first."""
        asked = batch.valid[:, 1:] & ~batch.hidden[:, :-1]  # [B, T - 1]; what is asked for follows a visible token
        return self.head.expected(self.read(batch)[:, :-1][asked])

    def embed(self, batch: MaskedText) -> Tensor:
        return mean_pool(self.read(batch), batch.valid)

    def scramble_hidden(self, batch: MaskedText, generator: torch.Generator) -> MaskedText:
        other = torch.randint(self.vocab, batch.ids.shape, generator=generator).to(batch.ids.device)  # [B, T]
        return replace(batch, ids=torch.where(batch.hidden, other, batch.ids))


def looking_back(valid: Tensor) -> Tensor:
    """valid [B, T] -> [B, T, T]: each token may read the real ones up to itself."""
    length = valid.shape[1]
    return valid[:, None, :] & torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()


def second_half(valid: Tensor, generator: torch.Generator) -> Tensor:
    """valid [N] with at least 2 True -> hidden [N]: the later half of the valid places, and all after the first such.

    `generator` is what every masker is given; nothing is drawn.
    """
    places = valid.nonzero().squeeze(1)
    hidden = torch.zeros_like(valid)
    hidden[places[(len(places) + 1) // 2 :]] = True
    return hidden


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    saved = context.assets / "tokenizer.json"
    tokenizer = load_or_train(config.tokenizer, config.data, saved, config.encoder.named_in("encoder"))
    method = NextToken(config, tokenizer.vocabulary, context)
    train_data, eval_data = train_and_eval(config.data, TextRows(tokenizer, method.student.max_len))
    collate = MaskedTextCollator(tokenizer, second_half)
    return Experiment(
        method=method,
        train_data=train_data,
        eval_data=eval_data,
        collate=collate,
        prepare=collate.inputs(method.student.max_len, config.data.synthetic),
        train=config.train,
        unknown=lambda: train_data.unknown,
        tasks=lambda: text_tasks(config.data),
    )
