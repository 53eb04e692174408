"""LANG-JEPA on frozen latents: predict the vectors of hidden sentences from those of the others.

A pretrained sentence encoder reads each sentence alone, and stays as it is. What is learned is how the sentences of a
document follow from each other: a predictor reads the vectors of the visible sentences at their positions, and
estimates that of each hidden one. The target is the frozen vector itself, so nothing can collapse.

Most of what is predictable is continuity: the mean of the visible vectors, the near ones weighted more
(`NeighbourMean`). The prediction is that mean, learned with it, plus what a small transformer adds. Documents of many
sentences are read in one row, since the encoder's part is done once for each sentence and kept (`cached`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.encoder import Encoder
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Method, StepOutput
from openjepa.core.reading import ReadoutSource, TextLatents
from openjepa.core.tasks import Task
from openjepa.data.text.masked import MaskedText
from openjepa.data.text.masked_sentences import PAD_TO, MaskedSentencesCollator
from openjepa.data.text.rows import SentenceRows
from openjepa.data.text.sentences import SentencesConfig
from openjepa.data.text.sources import DataConfig
from openjepa.data.text.views import TextViewsCollator
from openjepa.data.tokenizers.choice import TextTokenizer
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import text_experiment, tokenizer_for
from openjepa.masking.sentences import SentenceMaskConfig, SentenceMasker
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.neighbour_mean import NeighbourMean
from openjepa.models.predictors import SequencePredictorConfig, build_predictor
from openjepa.models.sentence_head import embedded
from openjepa.models.sentence_latents import SentenceLatents
from openjepa.objectives.contrast import ContrastConfig, LateContrast
from openjepa.objectives.latent import build_objective
from openjepa.tasks.sentences import sentence_tasks
from openjepa.tasks.texts import text_tasks


class Config(BaseConfig):
    """Everything that defines a run. Defaults are the preset concepts of lang_jepa, but for its encoder."""

    FIRST = ("data", "encoder", "mask", "predictor", "train")

    data: DataConfig = DataConfig()
    sentences: SentencesConfig = SentencesConfig(passages=8)
    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=4000)
    encoder: EncoderConfig = EncoderConfig()
    """stays as it is; without a name, a random one, whose vectors hold little"""
    mask: SentenceMaskConfig = SentenceMaskConfig(ratio=0.3)
    predictor: SequencePredictorConfig = SequencePredictorConfig(width=256, depth=2, alibi=True)
    objective: str = "mse"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    contrast: ContrastConfig = ContrastConfig(weight=0.1, similarity="product", start=0.0)
    """distinguishing each hidden sentence from the others of its document"""
    cached: int = Field(1_000_000, ge=0)
    """sentences whose latents are kept in memory; of more, the others are encoded each time they are read"""
    train: TrainConfig = TrainConfig(
        steps=1000,
        batch_tokens=0,
        batch_size=16,
        lr=2e-3,
        precision="bf16-mixed",
        threads=2,
        health_every=250,
        checkpoint_every=250,
    )


class Predictor(nn.Module):
    """The mean of the visible vectors, the near ones weighted more, plus what a transformer adds to it."""

    def __init__(self, transformer: nn.Module, dim: int) -> None:
        super().__init__()
        self.mean = NeighbourMean()
        self.transformer = transformer
        self.scale = nn.Parameter(torch.full((dim,), 0.1))  # of what it adds: training begins near the mean

    def forward(
        self, context: Tensor, positions: Tensor, valid: Tensor, hidden_positions: Tensor, hidden_valid: Tensor
    ) -> Tensor:
        """context [G, Z, D] at `positions` [G, Z], where `valid`, and the hidden positions [G, A] -> [G, A, D]."""
        mean = self.mean(context, positions, valid, hidden_positions)  # [G, A, D]
        beyond = self.transformer(context, positions, valid, mean, hidden_positions, hidden_valid)  # [G, A, D]
        return mean + self.scale * beyond


class ConceptJEPA(Method[MaskedText]):
    """A frozen encoder, and a predictor of sentence vectors. N sentences in a batch, M of them hidden."""

    def __init__(self, config: Config, tokenizer: TextTokenizer, context: BuildContext) -> None:
        super().__init__()
        self.student = build_encoder(config.encoder, tokenizer.vocabulary, context).requires_grad_(False)
        self.latents = SentenceLatents(self.student, tokenizer.prefix, config.cached)
        dim = self.latents.dim
        most_sentences = config.sentences.passages * self.student.max_len
        self.predictor = Predictor(build_predictor(config.predictor, dim, dim, most_sentences), dim)
        self.distance = build_objective(config.objective)
        self.contrast = LateContrast(config.contrast)

    def predict(self, batch: MaskedText, latents: Tensor) -> Tensor:
        """The estimated vectors of the hidden sentences [M, D]; of `latents` [N, D] only the visible ones are read."""
        visible = batch.visible_by_document
        hidden = batch.hidden_by_document
        predicted = self.predictor(
            latents[visible.number],  # [G, Z, D]
            batch.position[visible.number],
            visible.valid,
            batch.position[hidden.number],
            hidden.valid,
        )  # [G, A, D]
        return batch.pick(predicted, hidden.valid)

    def predict_from_context(self, batch: MaskedText) -> Tensor:
        return self.predict(batch, self.all_targets(batch))

    def sentence_latents(self, batch: MaskedText) -> Tensor:
        """The vectors of all sentences [N, D]."""
        return self.latents(batch.ids, batch.segment, batch.keys)

    def as_targets(self, latents: Tensor) -> Tensor:
        """Vectors of sentences [N, D] as they are predicted: unchanged."""
        return latents

    def all_targets(self, batch: MaskedText) -> Tensor:
        """The targets of all sentences [N, D]."""
        return self.as_targets(self.sentence_latents(batch))

    def forward(self, batch: MaskedText) -> StepOutput:
        latents = self.all_targets(batch)  # [N, D]
        predicted = self.predict(batch, latents)  # [M, D]
        target = latents[batch.hidden_segments]  # [M, D]
        terms = {"prediction": self.distance(predicted, target)}
        if self.contrast.weight(batch.progress) > 0:
            terms["contrast"] = self.contrast(predicted, latents, batch.hidden_segments, batch.document, batch.progress)
        return StepOutput(terms, self.distance.latents(predicted, target))

    def inspect(self, batch: MaskedText) -> Inspection:
        latents = self.all_targets(batch)  # [N, D]
        return Inspection(
            rows=batch.row[batch.hidden_segments],
            positions=batch.position[batch.hidden_segments],
            copied=self.distance.copied(
                latents[batch.nearest_visible_segments()], lambda: latents[batch.hidden_segments]
            ),
        )

    def embed(self, batch: MaskedText) -> Tensor:
        return embedded(self.student, batch.ids, batch.valid)

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student}

    def train(self, mode: bool = True) -> ConceptJEPA:
        """The encoder stays in eval mode, so that dropout cannot change a sentence's vector."""
        super().train(mode)
        self.student.eval()
        return self


def readout_latents(method: ConceptJEPA, batch: MaskedText, special: Sequence[int]) -> TextLatents:
    """Target and predicted vector of every hidden sentence, and its tokens without those in `special`."""
    targets = method.all_targets(batch)[batch.hidden_segments]
    return TextLatents(targets, method.predict_from_context(batch), *batch.hidden_texts(special))


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    tokenizer = tokenizer_for(config, config.encoder.named_in("encoder"), context)
    method = ConceptJEPA(config, tokenizer, context)
    rows = SentenceRows(tokenizer, config.sentences, method.student.max_len)
    collate = MaskedSentencesCollator(rows, SentenceMasker(config.mask.strategy, config.mask.ratio))
    experiment = text_experiment(
        method,
        config,
        rows=rows,
        collate=collate,
        inputs=TextViewsCollator(tokenizer).inputs(method.student.max_len),
        pad_to=PAD_TO,
        readable=ReadoutSource(
            lambda method, batch: readout_latents(method, batch, tokenizer.special_ids),
            tokenizer.decode,
            tokenizer.vocab_size,
        ),
        pictures=collate.pictures,
    )

    def tasks() -> list[Task]:
        hidden = sentence_tasks(experiment.eval_data, collate, whole=config.predictor.alibi)
        return [*text_tasks(config.data), *hidden]

    return replace(experiment, tasks=tasks)
