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
run, `contrast` (off by default) pays for telling which of its sentences was meant.
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
from openjepa.core.distributed import rank_weight
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Latents, Method, Progress, StepOutput
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
from openjepa.objectives.latent import mse, named_objective
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer, regularize_both
from openjepa.objectives.targets import TargetConfig, make_targets, target_layers


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
    regularize: Literal["documents", "sentences"] = "documents"
    """what must not collapse: the two means of each document, or the latents of its hidden sentences"""
    invariance: float = Field(0.6, ge=0)
    """pull the student's mean of the visible and of the hidden sentences together; times regularizer.weight"""
    contrast: ContrastConfig = ContrastConfig()
    """telling each hidden sentence from the others of its document, visible ones too"""
    train: TrainConfig = TrainConfig()


class LangJEPA(Method[MaskedSentences]):
    """Student, teacher, predictor and their loss."""

    def __init__(self, config: Config, vocab: Vocabulary, context: BuildContext) -> None:
        super().__init__()
        self.config, self.vocab = config, vocab.size
        self.student = build_encoder(config.encoder, vocab, context)
        self.teacher = EMATarget(self.student, config.momentum.schedule())
        dim, read = self.student.dim, (2 if config.target.skip_top else 1) * self.student.dim
        self.predictor = build_predictor(config.predictor, read, dim, config.sentences.passages * self.student.max_len)
        self.objective = named_objective(config.objective)
        self.regularizer = build_regularizer(config.regularizer)
        self.contrast = LateContrast(config.contrast)

    def see_context(self, batch: MaskedSentences) -> list[Tensor]:
        """The student's latents of the visible sentences' tokens, of all layers, each [B, V, D]."""
        return self.student.states(take(batch.ids, batch.context_at), batch.context_valid, batch.context_at)

    def predict(self, batch: MaskedSentences, context: list[Tensor]) -> Tensor:
        """The estimated latents of the hidden sentences [M, D]; a place is a sentence's number in its document."""
        read = [context[-1]]
        if self.config.target.skip_top:  # also the level that is predicted, where sentences differ more
            lower = target_layers(self.config.target, context)[-1]
            read.append(F.layer_norm(lower, lower.shape[-1:]))
        concepts = batch.visible_part.weights @ torch.cat(read, -1).float()  # [B, C, D or 2D]
        seen = (concepts.flatten(0, 1)[batch.all_seen], batch.seen_places, batch.all_seen_valid)  # [G, Z, ...]
        return self.predictor(*seen, None, batch.asked_places, batch.all_asked_valid)[batch.all_asked_valid]

    def predict_from_context(self, batch: MaskedSentences) -> Tensor:
        return self.predict(batch, self.see_context(batch))

    def forward(self, batch: MaskedSentences) -> StepOutput:
        every = self.sentence_targets(batch, *batch.every_sentence) if self.contrast.on else None  # [N, D]
        target = self.teach(batch, batch.hidden_part) if every is None else every[batch.hidden_of_all]  # [M, D]
        context = self.see_context(batch)  # [B, V, D]
        predicted = self.predict(batch, context)  # [M, D]
        pooled = mean_pool(context[-1], batch.context_valid)  # [B, D]

        terms = {"prediction": self.objective(predicted, target).mean() * rank_weight(len(target), target.device)}
        if every is not None:
            terms["contrast"] = self.contrast(predicted, every, batch.hidden_of_all, batch.document_of_all)
        terms |= self.regularize(batch, pooled)
        loss = torch.stack(list(terms.values())).sum()
        latents = self._latents(batch, predicted, target, pooled)
        return StepOutput(loss, latents, {name: term.detach() for name, term in terms.items()})

    def sentence_targets(self, batch: MaskedSentences, sentences: Tensor, real: Tensor) -> Tensor:
        """Targets of `sentences` [B, S], numbers within each row, where `real` [B, S] -> [M, D]."""
        return self.teach(batch, batch.part(sentences, real))

    def teach(self, batch: MaskedSentences, some: Sentences) -> Tensor:
        """Targets [M, D]: the mean of the teacher's latents over each sentence. Others are not even encoded."""
        top = self.config.target.skip_top  # layers that are not computed
        if self.config.teacher_reads == "alone":
            layers = self.teacher.states(take(batch.ids, some.at), *some.alone, top)  # each [B, K, D]
        else:
            layers = [take(state, some.at) for state in self.teacher.states(batch.ids, batch.valid, None, top)]
        used = target_layers(self.config.target, layers, top)
        return make_targets(self.config.target, [(some.weights @ layer.float())[some.real] for layer in used])

    def regularize(self, batch: MaskedSentences, pooled: Tensor) -> dict[str, Tensor]:
        """Terms that keep the latents alive, and pull the visible and the hidden part of a document [B, D] together."""
        weight = self.config.invariance * self.config.regularizer.weight
        if self.config.regularizer.name == "none" or (weight == 0 and self.config.regularize == "documents"):
            return self.regularizer(pooled, batch.draw)
        states = self.student(take(batch.ids, batch.hidden_at), *batch.hidden_part.alone)  # [B, H, D]
        other = mean_pool(states, batch.hidden_valid)  # [B, D]
        if self.config.regularize == "sentences":
            sentences = (batch.hidden_part.weights @ states.float())[batch.asked_valid]  # [M, D]
            terms = self.regularizer(sentences, batch.draw)
        else:
            terms = regularize_both(self.regularizer, pooled, other, batch.draw)
        share = rank_weight(len(pooled), pooled.device)
        return terms | {"invariance": weight * share * mse(pooled, other).mean()}

    def _latents(self, batch: MaskedSentences, predicted: Tensor, target: Tensor, pooled: Tensor) -> Latents:
        latents = Latents(predicted.detach(), target, pooled.detach())
        if self.training:
            return latents
        latents.rows, latents.places = batch.asked_valid.nonzero()[:, 0], batch.asked_places[batch.all_asked_valid]
        latents.copied = self.sentence_targets(batch, batch.nearest_visible(), batch.asked_valid)  # [M, D]
        latents.context = self.embed(batch)  # [B, D]
        latents.teacher = mean_pool(self.teacher.states(batch.ids, batch.valid)[-1], batch.valid)  # [B, D]
        return latents

    def embed(self, batch: MaskedSentences) -> Tensor:
        return mean_pool(self.student(batch.ids, batch.valid), batch.valid)

    def scramble_hidden(self, batch: MaskedSentences, generator: torch.Generator) -> MaskedSentences:
        other = torch.randint(self.vocab, batch.ids.shape, generator=generator).to(batch.ids.device)  # [B, T]
        return replace(batch, ids=torch.where(batch.hidden, other, batch.ids))

    def after_step(self, progress: Progress) -> None:
        self.teacher.update(self.student, progress)
        self.contrast.update(progress)


def read_back(method: LangJEPA, batch: MaskedSentences, special: Sequence[int]) -> Reading:
    """Every hidden sentence: its concept as taught and as predicted, and its tokens without those in `special`."""
    target = method.teach(batch, batch.hidden_part)  # [M, D]
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
