"""MLM baseline: predict hidden tokens from the rest of the text (Devlin et al. 2019), on the encoder of a text JEPA.

A share of the tokens is replaced by [MASK], and a head maps the encoder's latents there to a distribution over the
vocabulary. All hidden tokens become [MASK]: BERT's 10 % random and 10 % unchanged ones do not help (Wettig et al.
2023), and an unchanged token would be visible to its own prediction. The mean of the latents is the text's embedding,
as in T-JEPA.

Health is measured on the head's output embeddings: the prediction is the expected embedding under the predicted
distribution, the target that of the true token, so skill is the explained variance of token embeddings.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.encoder import Encoder
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Latents, Method, StepOutput
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.text.masked import MaskedText, MaskedTextCollator
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import text_experiment, tokenizer_for
from openjepa.masking.spans import SpanMasker
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.sentence_head import embedded
from openjepa.models.transformer import gather_positions
from openjepa.objectives.tokens import TokenHead


class Config(BaseConfig):
    """Everything that defines an MLM run."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=4000)
    encoder: EncoderConfig = EncoderConfig(depth=1, max_len=128)
    mask_ratio: float = Field(0.15, gt=0, lt=1)
    """hidden part of each text's real tokens"""
    train: TrainConfig = TrainConfig(
        steps=1150,
        batch_tokens=4096,
        batch_size=128,
        lr=3e-3,
        precision="bf16-mixed",
        threads=1,
        workers=1,
    )


class MLM(Method[MaskedText]):
    """An encoder and a token head."""

    def __init__(self, config: Config, vocab: Vocabulary, mask_id: int, context: BuildContext) -> None:
        super().__init__()
        self.mask_id = mask_id
        self.student = build_encoder(config.encoder, vocab, context)
        self.head = TokenHead(self.student.dim, vocab.size)

    def read_masked(self, batch: MaskedText) -> tuple[Tensor, Tensor]:
        """Latents of the masked text: of all tokens [B, T, D], and of the hidden ones [M, D]."""
        states = self.student(batch.ids.masked_fill(batch.hidden, self.mask_id), batch.valid)
        return states, batch.pick(gather_positions(states, batch.hidden_tokens.at), batch.hidden_tokens.valid)

    def forward(self, batch: MaskedText) -> StepOutput:
        _, hidden = self.read_masked(batch)  # [M, D]
        loss = self.head(
            hidden, batch.pick(gather_positions(batch.ids, batch.hidden_tokens.at), batch.hidden_tokens.valid)
        )
        if self.training:  # expected embeddings would cost a third more of the softmax
            return StepOutput({"tokens": loss})
        target = self.embeddings(batch, batch.hidden_tokens.at)  # [M, D]
        return StepOutput({"tokens": loss}, Latents(self.head.expected(hidden), target))

    def embeddings(self, batch: MaskedText, positions: Tensor) -> Tensor:
        """Output embeddings [M, D] of the tokens at these positions [B, H], one for each hidden token."""
        return self.head.embeddings(batch.pick(gather_positions(batch.ids, positions), batch.hidden_tokens.valid))

    def inspect(self, batch: MaskedText) -> Inspection:
        return Inspection(
            rows=batch.hidden_tokens.valid.nonzero()[:, 0],
            positions=batch.hidden_tokens.at[batch.hidden_tokens.valid],
            copied=self.embeddings(batch, batch.nearest_visible_tokens()),
        )

    def predict_from_context(self, batch: MaskedText) -> Tensor:
        return self.head.expected(self.read_masked(batch)[1])

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student}

    def embed(self, batch: MaskedText) -> Tensor:
        return embedded(self.student, batch.ids, batch.valid)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    tokenizer = tokenizer_for(config, config.encoder.named_in("encoder"), context)
    method = MLM(config, tokenizer.vocabulary, tokenizer.mask_id, context)
    max_len = method.student.max_len
    run_length = 1 / (1 - config.mask_ratio)  # mean length of hidden runs if each token were drawn independently
    collate = MaskedTextCollator(tokenizer, SpanMasker(config.mask_ratio, run_length))
    return text_experiment(
        method,
        config,
        rows=TextRows(tokenizer, max_len),
        collate=collate,
        inputs=collate.inputs(max_len),
        mask_ratio=config.mask_ratio,
    )
