"""SimCSE baseline: match two passes of a text that differ only in dropout (Gao et al. 2021, unsupervised).

InfoNCE: the first view of a text has to identify its second view among those of the batch. The mean of the latents is
the text's embedding, as in T-JEPA; the projection is used only in training, as in the original.

Health is measured between the two views, with dropout in held-out batches as well: the prediction is the first view's
projection, the target the second's. Skill is then high from the start and no measure of progress: it shows how little
dropout changes a projection. Judge the embeddings by rank, spread and cosine.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.distributed import gather_rows
from openjepa.core.encoder import Encoder
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Latents, Method, StepOutput
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig
from openjepa.data.text.views import TextViews, TextViewsCollator
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import text_experiment, tokenizer_for
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.sentence_head import embedded
from openjepa.models.transformer import mean_pool
from openjepa.objectives.contrast import info_nce


class Config(BaseConfig):
    """Everything that defines a SimCSE run."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=4000)
    encoder: EncoderConfig = EncoderConfig(depth=1, max_len=128)
    dropout: float = Field(0.1, gt=0, lt=1)
    """makes the two views differ; replaces encoder.dropout (a pretrained encoder keeps its own)"""
    temperature: float = Field(0.05, gt=0)
    """cosines are divided by it"""
    train: TrainConfig = TrainConfig(
        steps=1150,
        batch_tokens=4096,
        batch_size=128,
        lr=3e-3,
        precision="bf16-mixed",
        threads=1,
        workers=1,
    )


class SimCSE(Method[TextViews]):
    """An encoder, a projection and the loss between two views."""

    def __init__(self, config: Config, vocab: Vocabulary, context: BuildContext) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.student = build_encoder(config.encoder.model_copy(update={"dropout": config.dropout}), vocab, context)
        self.head = nn.Sequential(nn.Linear(self.student.dim, self.student.dim), nn.Tanh())

    def project(self, ids: Tensor, valid: Tensor) -> Tensor:
        """ids, valid [B, T] -> unit vectors [B, D] of one view: dropout is on, whatever the mode."""
        training = self.student.training
        self.student.train()
        try:
            return F.normalize(self.head(mean_pool(self.student(ids, valid), valid)).float(), dim=-1)
        finally:
            self.student.train(training)

    def forward(self, batch: TextViews) -> StepOutput:
        first = gather_rows(self.project(batch.ids, batch.valid))  # [B, D] of all ranks
        second = gather_rows(self.project(batch.second_ids, batch.valid))  # [B, D]
        return StepOutput({"contrast": info_nce(first, second, self.temperature)}, Latents(first, second.detach()))

    def predict_from_context(self, batch: TextViews) -> Tensor:
        return self.project(batch.ids, batch.valid)

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student}

    def embed(self, batch: TextViews) -> Tensor:
        return embedded(self.student, batch.ids, batch.valid)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    tokenizer = tokenizer_for(config, config.encoder.named_in("encoder"), context)
    method = SimCSE(config, tokenizer.vocabulary, context)
    max_len = method.student.max_len
    collate = TextViewsCollator(tokenizer)
    return text_experiment(
        method,
        config,
        rows=TextRows(tokenizer, max_len),
        collate=collate,
        inputs=collate.inputs(max_len),
    )
