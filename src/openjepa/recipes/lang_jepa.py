"""LANG-JEPA: predict the latents of hidden sentences from the other sentences of the document.

A document is a row of whole sentences. The student reads the visible ones together (`sentences.passages` of them apart
if it is long); a predictor sees one latent for each and, told which sentence it is asked for, estimates one latent per
hidden sentence; an EMA teacher gives the targets. A sentence's latent is the mean over its tokens. One pass for the
context, one for all targets. The mean of the student's token latents over a whole text is its embedding.

Two choices decide what a target holds (figures in docs/lab-log.md). The teacher reads each sentence `alone` (default: a
concept for itself) or in its `document` (it then holds what its neighbours show, and can be guessed by copying). And
the top layer learns what the sentences of a document share, those below (`target.skip_top`) still tell them apart.

As in T-JEPA, the student's mean of the visible and of the hidden sentences are pulled together and kept from
collapsing by the regulariser (`invariance`). A distance to the target pays for what a whole document shares; late in a
run, `contrast` (InfoNCE among the sentences of the document; on in both presets) pays for telling them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.reading import Readable, Reading
from openjepa.core.schedules import half_life_steps
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.masked_sentences import PAD_TO, MaskedSentences, MaskedSentencesCollator, Sentences
from openjepa.data.sentence_tasks import sentence_tasks
from openjepa.data.sources import DataConfig
from openjepa.data.text import SentenceRows, SentencesConfig, TokenizerConfig, load_or_train, text_tasks, train_and_eval
from openjepa.masking.sentences import SentenceMaskConfig, SentenceMasker
from openjepa.models.encoders import EncoderConfig, build_encoder, text_layers
from openjepa.models.predictors import SequencePredictorConfig, build_predictor
from openjepa.models.target import EMATarget, MomentumConfig
from openjepa.models.transformer import mean_pool, take
from openjepa.objectives.contrast import ContrastConfig, LateContrast
from openjepa.objectives.latent import build_objective
from openjepa.objectives.regularizers import RegularizerConfig
from openjepa.objectives.targets import TargetConfig, make_targets, target_layers
from openjepa.objectives.two_views import TwoViews


class Config(BaseConfig):
    """Everything that defines a LANG-JEPA run."""

    data: DataConfig = DataConfig()
    sentences: SentencesConfig = SentencesConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    encoder: EncoderConfig = EncoderConfig()
    mask: SentenceMaskConfig = SentenceMaskConfig()
    predictor: SequencePredictorConfig = SequencePredictorConfig()
    target: TargetConfig = TargetConfig(norm="standardize")
    teacher_reads: Literal["alone", "document"] = "alone"
    """each hidden sentence as a text of its own, or in its document"""
    momentum: MomentumConfig = MomentumConfig()
    objective: str = "smooth_l1"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    regularizer: RegularizerConfig = RegularizerConfig(weight=25.0, covariance=1.0)
    invariance: float = Field(15.0, ge=0)
    """weight of pulling the student's means of the visible and of the hidden sentences together, both regularised; none
    without a regulariser; 0 = regularise the visible ones alone, one student pass less"""
    contrast: ContrastConfig = ContrastConfig()
    """telling each hidden sentence from the others of its document, visible ones too"""
    train: TrainConfig = TrainConfig()


class LangJEPA(Method[MaskedSentences]):
    """Student, teacher, predictor and their loss."""

    def __init__(self, config: Config, vocab: Vocabulary, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.student = build_encoder(config.encoder, vocab, context)
        self.teacher = EMATarget(self.student, config.momentum.schedule())
        dim, read = self.student.dim, (2 if config.target.skip_top else 1) * self.student.dim
        self.predictor = build_predictor(config.predictor, read, dim, config.sentences.passages * self.student.max_len)
        self.distance = build_objective(config.objective)
        self.two_views = TwoViews(config.regularizer, config.invariance)
        self.contrast = LateContrast(config.contrast)

    def encode_context(self, batch: MaskedSentences) -> list[Tensor]:
        """The student's latents of the visible sentences' tokens, of all layers, each [B, V, D]."""
        return self.student.states(take(batch.ids, batch.context_at), batch.context_valid, batch.context_at)

    def predict(self, batch: MaskedSentences, context: list[Tensor]) -> Tensor:
        """The estimated latents of the hidden sentences [M, D]; a position is a sentence's number in its document."""
        read = [context[-1]]
        if self.config.target.skip_top:  # also the level that is predicted, where sentences differ more
            lower = target_layers(self.config.target, context)[-1]
            read.append(F.layer_norm(lower, lower.shape[-1:]))
        concepts = batch.visible_part.weights @ torch.cat(read, -1).float()  # [B, C, D or 2D]
        visible = concepts.flatten(0, 1)[batch.all_seen]  # [G, Z, D or 2D]
        predicted = self.predictor(
            visible, batch.seen_places, batch.all_seen_valid, None, batch.asked_places, batch.all_asked_valid
        )  # [G, A, D]
        return predicted[batch.all_asked_valid]

    def predict_from_context(self, batch: MaskedSentences) -> Tensor:
        return self.predict(batch, self.encode_context(batch))

    def forward(self, batch: MaskedSentences) -> StepOutput:
        contrasted = self.contrast.weight(batch.progress) > 0
        every = self.targets(batch, batch.part(*batch.every_sentence)) if contrasted else None  # [N, D]
        target = self.targets(batch, batch.hidden_part) if every is None else every[batch.hidden_of_all]  # [M, D]
        context = self.encode_context(batch)  # [B, V, D]
        predicted = self.predict(batch, context)  # [M, D]

        terms = {"prediction": self.distance(predicted, target)}
        if every is not None:
            terms["contrast"] = self.contrast(
                predicted, every, batch.hidden_of_all, batch.document_of_all, batch.progress
            )
        visible = mean_pool(context[-1], batch.context_valid)  # [B, D]
        hidden = self.encode_hidden(batch) if self.two_views.pulls else None  # [B, D]
        terms |= self.two_views(visible, hidden, batch.draw)
        return StepOutput(terms, self.distance.latents(predicted, target))

    def encode_hidden(self, batch: MaskedSentences) -> Tensor:
        """The student's mean latent of each document's hidden tokens [B, D], every sentence read by itself."""
        states = self.student(take(batch.ids, batch.hidden_at), *batch.hidden_part.alone)  # [B, H, D]
        return mean_pool(states, batch.hidden_valid)

    def targets(self, batch: MaskedSentences, some: Sentences) -> Tensor:
        """The mean of the teacher's latents over each of these sentences [M, D]. Others are not even encoded."""
        top = self.config.target.skip_top  # layers that are not computed
        if self.config.teacher_reads == "alone":
            layers = self.teacher.states(take(batch.ids, some.at), *some.alone, top)  # each [B, K, D]
        else:
            layers = [take(state, some.at) for state in self.teacher.states(batch.ids, batch.valid, None, top)]
        used = target_layers(self.config.target, layers, top)
        return make_targets(self.config.target, [(some.weights @ layer.float())[some.real] for layer in used])

    def inspect(self, batch: MaskedSentences) -> Inspection:
        copied = self.targets(batch, batch.part(batch.nearest_visible(), batch.asked_valid))  # [M, D]
        return Inspection(
            rows=batch.asked_valid.nonzero()[:, 0],
            positions=batch.asked_places[batch.all_asked_valid],
            copied=self.distance.copied(copied, lambda: self.targets(batch, batch.hidden_part)),
            teacher=mean_pool(self.teacher.states(batch.ids, batch.valid)[-1], batch.valid),
        )

    def embed(self, batch: MaskedSentences) -> Tensor:
        return mean_pool(self.student(batch.ids, batch.valid), batch.valid)

    def after_step(self, progress: Progress) -> None:
        self.teacher.update(self.student, progress)


def read_back(method: LangJEPA, batch: MaskedSentences, special: Sequence[int]) -> Reading:
    """Every hidden sentence: its concept as taught and as predicted, and its tokens without those in `special`."""
    target = method.targets(batch, batch.hidden_part)  # [M, D]
    return Reading(target, method.predict_from_context(batch), *batch.hidden_texts(special))


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    saved = context.assets / "tokenizer.json"
    tokenizer = load_or_train(config.tokenizer, config.data, saved, config.encoder.named_in("encoder"))
    method = LangJEPA(config, tokenizer.vocabulary, context)
    rows = SentenceRows(tokenizer, config.sentences, method.student.max_len)
    train_data, eval_data = train_and_eval(config.data, rows)
    collate = MaskedSentencesCollator(rows, SentenceMasker(config.mask.strategy, config.mask.ratio))
    return Experiment(
        method=method,
        train_data=train_data,
        eval_data=eval_data,
        collate=collate,
        prepare=collate.inputs(config.data.synthetic),
        train=config.train,
        pad_to=PAD_TO,
        tasks=lambda: [*text_tasks(config.data), *sentence_tasks(eval_data, collate, whole=config.predictor.alibi)],
        readable=Readable(
            lambda *asked: read_back(*asked, tokenizer.special_ids), tokenizer.decode, tokenizer.vocab_size
        ),
        layers=text_layers,
        pictures=collate.pictures,
        unknown=lambda: train_data.unknown,
        notes=lambda: {"teacher_half_life_steps": round(half_life_steps(config.momentum.start), 1)},
    )
