"""LANG-JEPA: predict the latents of hidden sentences from the other sentences of the document.

A document is a row of whole sentences. The student reads the visible ones together (in `sentences.passages` separate
passages if it is long); a predictor reads one latent for each and estimates one latent at the position of each hidden
sentence; an EMA teacher gives the targets. A sentence's latent is the mean over its tokens. One pass for the
context, one for all targets. The mean of the student's token latents over a whole text is its embedding.

Two choices decide what a target holds (figures in docs/lab-log). The teacher reads each sentence `alone` (default)
or in its `document` (its target then contains its neighbours' content, and can be predicted by copying). And the top
layer encodes what the sentences of a document share; those below (`target.skip_top`) still distinguish them.

As in T-JEPA, the student's mean of the visible and of the hidden sentences are pulled together and kept from
collapsing by the regulariser (`invariance`). A distance to the target rewards what a whole document shares; late in a
run, `contrast` (InfoNCE among the sentences of the document; on in both presets) rewards what distinguishes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.encoder import Encoder
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.reading import ReadoutSource, TextLatents
from openjepa.core.schedules import half_life_steps
from openjepa.core.tasks import Task
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.text.masked import MaskedText, Tokens
from openjepa.data.text.masked_sentences import PAD_TO, MaskedSentencesCollator
from openjepa.data.text.rows import SentenceRows
from openjepa.data.text.sentences import SentencesConfig
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import text_experiment, tokenizer_for
from openjepa.masking.sentences import SentenceMaskConfig, SentenceMasker
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.predictors import SequencePredictorConfig, build_predictor
from openjepa.models.sentence_head import embedded
from openjepa.models.target import EMATarget, MomentumConfig
from openjepa.models.transformer import gather_positions, mean_pool, segment_mean
from openjepa.objectives.contrast import ContrastConfig, LateContrast
from openjepa.objectives.latent import build_objective
from openjepa.objectives.regularizers import RegularizerConfig
from openjepa.objectives.targets import TargetConfig, make_targets, merged, target_layers
from openjepa.objectives.two_views import TwoViews
from openjepa.tasks.sentences import sentence_tasks
from openjepa.tasks.texts import text_tasks


class Config(BaseConfig):
    """Everything that defines a LANG-JEPA run. Defaults are the preset tiny, measured in docs/lab-log."""

    FIRST = (
        "data",
        "encoder",
        "mask",
        "teacher_reads",
        "objective",
        "regularizer",
        "train",
    )

    data: DataConfig = DataConfig()
    sentences: SentencesConfig = SentencesConfig()
    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=4000)
    encoder: EncoderConfig = EncoderConfig(depth=1, max_len=128)
    mask: SentenceMaskConfig = SentenceMaskConfig()
    predictor: SequencePredictorConfig = SequencePredictorConfig(width=256, depth=2)
    target: TargetConfig = TargetConfig(norm="standardize", skip_top=1)
    teacher_reads: Literal["alone", "document"] = "alone"
    """each hidden sentence as a separate text, or in its document"""
    momentum: MomentumConfig = MomentumConfig()
    objective: str = "smooth_l1"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    regularizer: RegularizerConfig = RegularizerConfig(weight=10.0, covariance=3.5, mean=0.2)
    invariance: float = Field(6.0, ge=0)
    """weight of pulling the student's means of the visible and of the hidden sentences together, both regularised; no
    effect without a regulariser; 0 = regularise only the visible ones, one student pass less"""
    contrast: ContrastConfig = ContrastConfig(weight=0.3, start=0.4)
    """distinguishing each hidden sentence from the others of its document, visible ones too"""
    train: TrainConfig = TrainConfig(
        steps=1200,
        batch_tokens=4096,
        batch_size=128,
        lr=3e-3,
        precision="bf16-mixed",
        threads=2,
        workers=1,
        health_every=600,
        checkpoint_every=600,
    )


class LangJEPA(Method[MaskedText]):
    """Student, teacher, predictor and their loss. Segments of a batch are sentences: N in all, M of them hidden."""

    def __init__(self, config: Config, vocab: Vocabulary, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.student = build_encoder(config.encoder, vocab, context)
        self.teacher = EMATarget(self.student, config.momentum.schedule())
        dim = self.student.dim
        in_dim = 2 * dim if config.target.skip_top else dim
        max_len = config.sentences.passages * self.student.max_len
        self.predictor = build_predictor(config.predictor, in_dim, dim, max_len)
        self.distance = build_objective(config.objective)
        self.two_views = TwoViews(config.regularizer, config.invariance)
        self.contrast = LateContrast(config.contrast)

    def encode_context(self, batch: MaskedText) -> list[Tensor]:
        """The student's latents of the visible sentences' tokens, of all layers, each [B, V, D]."""
        visible = batch.visible_tokens
        return self.student.states(gather_positions(batch.ids, visible.at), visible.valid, visible.at)

    def predict(self, batch: MaskedText, context: list[Tensor]) -> Tensor:
        """The estimated latents of the hidden sentences [M, D], from one latent for each visible one."""
        layers = [context[-1]]
        if self.config.target.skip_top:  # also the layer that is predicted, in which sentences differ more
            lower = target_layers(self.config.target, context)[-1]
            layers.append(F.layer_norm(lower, lower.shape[-1:]))
        tokens = torch.cat(layers, -1)  # [B, V, D or 2D]
        seen = batch.visible_tokens
        concepts = segment_mean(tokens, seen.segment, seen.positions, len(batch.row))  # [N, D or 2D]

        visible = batch.visible_by_document
        hidden = batch.hidden_by_document
        predicted = self.predictor(
            concepts[visible.number],  # [G, Z, D or 2D]
            batch.position[visible.number],
            visible.valid,
            None,
            batch.position[hidden.number],
            hidden.valid,
        )  # [G, A, D]
        return batch.pick(predicted, hidden.valid)

    def predict_from_context(self, batch: MaskedText) -> Tensor:
        return self.predict(batch, self.encode_context(batch))

    def forward(self, batch: MaskedText) -> StepOutput:
        candidates = self.all_targets(batch) if self.contrast.weight(batch.progress) > 0 else None  # [N, D]
        target = self.hidden_targets(batch) if candidates is None else candidates[batch.hidden_segments]  # [M, D]
        context = self.encode_context(batch)  # layers x [B, V, D]
        predicted = self.predict(batch, context)  # [M, D]

        terms = {"prediction": self.distance(predicted, target)}
        if candidates is not None:
            terms["contrast"] = self.contrast(
                predicted, candidates, batch.hidden_segments, batch.document, batch.progress
            )
        visible = mean_pool(context[-1], batch.visible_tokens.valid)  # [B, D]
        hidden = self.encode_hidden(batch) if self.two_views.pulls else None  # [B, D]
        terms |= self.two_views(visible, hidden, batch.draw)
        return StepOutput(terms, self.distance.latents(predicted, target))

    def encode_hidden(self, batch: MaskedText) -> Tensor:
        """The student's mean latent of each row's hidden tokens [B, D], each sentence read separately."""
        hidden = batch.hidden_tokens
        latents = self.student(gather_positions(batch.ids, hidden.at), hidden.segment, hidden.positions)  # [B, H, D]
        return mean_pool(latents, hidden.valid)

    def hidden_targets(self, batch: MaskedText) -> Tensor:
        """The targets of the hidden sentences [M, D], without those of the others."""
        return self.targets(batch, batch.hidden_tokens, batch.hidden_segments)

    def all_targets(self, batch: MaskedText) -> Tensor:
        """The targets of all sentences [N, D]."""
        return self.as_targets(self.sentence_latents(batch))

    def sentence_latents(self, batch: MaskedText) -> Tensor:
        """What the targets of all sentences are made of [N, D]."""
        every = torch.arange(len(batch.row), device=batch.row.device)
        return self.latents_of(batch, batch.all_tokens, every)

    def as_targets(self, latents: Tensor) -> Tensor:
        """Latents of sentences [S, D], normed as targets; `standardize` takes its moments from these S."""
        return make_targets(self.config.target, [latents])

    def targets(self, batch: MaskedText, tokens: Tokens, sentences: Tensor) -> Tensor:
        """The targets of these `sentences` [S], read from `tokens` -> [S, D]."""
        return self.as_targets(self.latents_of(batch, tokens, sentences))

    def latents_of(self, batch: MaskedText, tokens: Tokens, sentences: Tensor) -> Tensor:
        """The mean of the teacher's latents of `tokens` over each of these `sentences` [S] -> [S, D]."""
        top = self.config.target.skip_top  # layers that are not computed
        if self.config.teacher_reads == "alone":
            layers = self.teacher.states(
                gather_positions(batch.ids, tokens.at), tokens.segment, tokens.positions, top
            )  # each [B, K, D]
        else:
            layers = [
                gather_positions(state, tokens.at) for state in self.teacher.states(batch.ids, batch.valid, None, top)
            ]
        used = target_layers(self.config.target, layers, top)
        count = len(batch.row)
        means = [
            segment_mean(layer, tokens.segment, tokens.positions, count)[sentences] for layer in used
        ]  # each [S, D]
        return merged(means)

    def inspect(self, batch: MaskedText) -> Inspection:
        copied = self.targets(batch, batch.all_tokens, batch.nearest_visible_segments())  # [M, D]
        return Inspection(
            rows=batch.row[batch.hidden_segments],
            positions=batch.position[batch.hidden_segments],
            copied=self.distance.copied(copied, lambda: self.hidden_targets(batch)),
            teacher=mean_pool(self.teacher.states(batch.ids, batch.valid)[-1], batch.valid),
        )

    def embed(self, batch: MaskedText) -> Tensor:
        return embedded(self.student, batch.ids, batch.valid)

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student, "teacher": self.teacher}

    def after_step(self, progress: Progress) -> None:
        self.teacher.update(self.student, progress)


def readout_latents(method: LangJEPA, batch: MaskedText, special: Sequence[int]) -> TextLatents:
    """Target and predicted latent of every hidden sentence, and its tokens without those in `special`."""
    return TextLatents(method.hidden_targets(batch), method.predict_from_context(batch), *batch.hidden_texts(special))


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    tokenizer = tokenizer_for(config, config.encoder.named_in("encoder"), context)
    method = LangJEPA(config, tokenizer.vocabulary, context)
    rows = SentenceRows(tokenizer, config.sentences, method.student.max_len)
    collate = MaskedSentencesCollator(rows, SentenceMasker(config.mask.strategy, config.mask.ratio))
    experiment = text_experiment(
        method,
        config,
        rows=rows,
        collate=collate,
        inputs=collate.inputs(),
        pad_to=PAD_TO,
        readable=ReadoutSource(
            lambda method, batch: readout_latents(method, batch, tokenizer.special_ids),
            tokenizer.decode,
            tokenizer.vocab_size,
        ),
        pictures=collate.pictures,
        notes=lambda: {"teacher_half_life_steps": round(half_life_steps(config.momentum.start), 1)},
    )

    def tasks() -> list[Task]:
        hidden = sentence_tasks(experiment.eval_data, collate, whole=config.predictor.alibi)
        return [*text_tasks(config.data), *hidden]

    return replace(experiment, tasks=tasks)
