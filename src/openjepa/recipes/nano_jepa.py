"""nanoJEPA: one small decoder predicts the latent of a question's answer without reading the answer.

A row is question, [SEP], answer, [PRED]. One causal pass reads the whole row, but the mask separates three parts: the
question, the answer (which does not attend to the question; its positions restart at 0), and [PRED], which reads the
whole question and nothing of the answer (`masking.attention`). The state at [PRED] is the prediction and, after
training, the question's embedding; the state at the answer's last token is the target, without gradient. Next-token
cross-entropy within question and answer keeps it a language model, as in LLM-JEPA (Huang et al. 2025).

With these losses only (preset `paper`), the cosine rises and the rank of the right answer stays at chance
(docs/lab-log): no loss constrains an answer's last token, so all answers collapse onto one line. Three remedies, all
on in `tiny`: VICReg on the answers' latents (`regularizer`), targets relative to what all answers share
(`target_space`), and an EMA copy of the decoder as their source, so that targets change slowly (`target_encoder`).

Preset `llm` follows LLM-JEPA on a pretrained decoder: tokens are learned in a plain causal pass, in which the answer
reads its question (`token_loss`), and the masked pass is left out in a share of the steps (`loss_dropout`). Unlike
there, no gradient flows into the target, positions of the answer restart at 0, and there is one [PRED], not up to four.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.distributed import mean_over_ranks
from openjepa.core.embedding import Embedding, EncoderInputs
from openjepa.core.encoder import Encoder
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.reading import ReadoutSource, TextLatents
from openjepa.core.seeding import generator_for
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.questions.batches import QuestionBatch, QuestionCollator, TokenizedQuestions, texts_of
from openjepa.data.questions.dataset import QuestionConfig, held_out_splits, questions
from openjepa.data.questions.numbers import same_answer
from openjepa.data.tokenizers.choice import TokenizerConfig, load_or_learn
from openjepa.masking.attention import question_answer_mask, question_answer_positions, row_mask, segment_ids
from openjepa.models.decoder import DecoderConfig
from openjepa.models.decoders import build_decoder
from openjepa.models.target import EMATarget, MomentumConfig
from openjepa.models.transformer import gather_positions
from openjepa.objectives.latent import build_objective
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer
from openjepa.objectives.running import RunningSpace, Space
from openjepa.tasks.questions import QuestionTasks

PREDICTED = "the decoder's last-layer latent of [PRED], the last token: the predicted answer"


class Config(BaseConfig):
    """Everything that defines a nanoJEPA run. Defaults are the preset tiny, measured in docs/lab-log/nano-jepa.md."""

    FIRST = (
        "data",
        "decoder",
        "weight",
        "objective",
        "target_encoder",
        "regularizer",
        "train",
    )

    data: QuestionConfig = QuestionConfig(eval_fraction=0.02)
    tokenizer: TokenizerConfig = TokenizerConfig(kind="bpe", vocab_size=2000, lowercase=False)
    decoder: DecoderConfig = DecoderConfig(depth=2, max_len=64)
    weight: float = Field(3.0, ge=0)
    """lambda: weight of the latent prediction beside the token cross-entropy; 0 = a plain language model"""
    loss_dropout: float = Field(0.0, ge=0, lt=1)
    """share of the batches without the latent prediction (LLM-JEPA: up to 0.75 costs no quality)"""
    token_loss: Literal["parts", "row", "answer"] = "parts"
    """which next tokens are learned: parts = those of question and answer, each read by itself, in the same pass as the
    prediction; row = all of the row in a plain causal pass of its own, where the answer reads its question; answer =
    only the answer's tokens, in that pass"""
    objective: str = "cosine"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    target_encoder: Literal["ema", "self"] = "ema"
    """whose latents of the answers are predicted: those of an EMA copy of the decoder, or its own"""
    momentum: MomentumConfig = MomentumConfig(start=0.99, final=1.0)
    """of the copy, where target_encoder is ema"""
    target_space: Space = "standardized"
    """raw = answers' latents; centered = minus their running mean; standardized = also divided by their deviation"""
    regularizer: RegularizerConfig = RegularizerConfig(weight=2.0)
    """on the answers' latents, which the prediction's gradient does not reach"""
    train: TrainConfig = TrainConfig(
        steps=2300,
        batch_tokens=2048,
        batch_size=128,
        lr=2e-3,
        precision="bf16-mixed",
        threads=1,
        workers=1,
        health_every=150,
        checkpoint_every=800,
    )

    def unused_here(self) -> set[str]:
        return {"momentum"} if self.target_encoder == "self" else set()


class NanoJEPA(Method[QuestionBatch]):
    """One decoder, its mask and its losses."""

    def __init__(self, config: Config, vocab: Vocabulary, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.decoder = build_decoder(config.decoder, vocab, context)
        self.teacher = EMATarget(self.decoder, config.momentum.schedule()) if config.target_encoder == "ema" else None
        self.space = RunningSpace(self.decoder.dim, config.target_space)
        self.distance = build_objective(config.objective)
        self.regularizer = build_regularizer(config.regularizer)

    def read(self, batch: QuestionBatch, reader: nn.Module | None = None) -> Tensor:
        """One pass over whole rows: the states [B, T, D]."""
        return (reader or self.decoder)(*question_inputs(batch).arguments)

    def predict_from_context(self, batch: QuestionBatch) -> Tensor:
        return at(self.read(batch), batch.pred_at)

    def embed(self, batch: QuestionBatch) -> Tensor:
        return self.predict_from_context(batch)

    def forward(self, batch: QuestionBatch) -> StepOutput:
        if self.config.token_loss == "parts":
            states = self.read(batch)  # [B, T, D]
            return self.with_prediction(self.token_loss(states, batch), states, batch)
        tokens = self.token_loss(self.read_row(batch), batch)
        if self.training and self.weight_of(batch.draw) == 0 and self.config.regularizer.name == "none":
            return StepOutput({"tokens": tokens})  # nothing else would need the masked pass
        return self.with_prediction(tokens, self.read(batch), batch)

    def with_prediction(self, tokens: Tensor, states: Tensor, batch: QuestionBatch) -> StepOutput:
        """All terms of the loss, from the token loss and the states of the masked pass [B, T, D]."""
        predicted = at(states, batch.pred_at)  # [B, D]
        answers = at(states, batch.answer_at)  # [B, D]
        target = self.targets(batch, answers)  # [B, D]
        terms = {"tokens": tokens, "prediction": self.weight_of(batch.draw) * self.distance(predicted, target)}
        terms |= self.regularizer(answers, batch.draw)
        return StepOutput(terms, self.distance.latents(predicted, target))

    def read_row(self, batch: QuestionBatch) -> Tensor:
        """The plain causal pass of a language model over whole rows: the states [B, T, D]."""
        return self.decoder(batch.ids, row_mask(batch.valid))

    def targets(self, batch: QuestionBatch, answers: Tensor) -> Tensor:
        """[B, D], without gradient: the answers' latents [B, D] of this very pass, or the teacher's."""
        if self.teacher is None:
            return self.space(answers)
        return self.encode_answers(*batch.answers())

    def weight_of(self, draw: int) -> float:
        """lambda, or 0 in the batches without the prediction; equal on all ranks."""
        share = self.config.loss_dropout if self.training else 0.0
        dropped = share > 0 and float(torch.rand((), generator=generator_for(0, "loss dropout", draw))) < share
        return 0.0 if dropped else self.config.weight

    def token_loss(self, states: Tensor, batch: QuestionBatch) -> Tensor:
        """Cross-entropy in nats of the tokens that `token_loss` names, mean over tokens; no first token of a text."""
        starts_or_goes_on = batch.hidden.roll(-1, 1)  # [B, T], where the next token is the answer's
        asked = {
            "parts": batch.followed,
            "row": batch.followed | starts_or_goes_on,
            "answer": starts_or_goes_on,
        }[self.config.token_loss]  # [B, T]
        before = batch.pick(states, asked)  # [N, D]
        following = batch.pick(batch.ids.roll(-1, 1), asked)  # [N]
        return mean_over_ranks(-self.decoder.log_probabilities(before, following))

    def question_log_likelihood(self, batch: QuestionBatch) -> Tensor:
        """[B] mean log-probability, in nats, of the question's tokens after the first one; batches without answers."""
        states = self.read(batch)  # [B, T, D]
        logs = self.decoder.log_probabilities(states[:, :-1], batch.ids[:, 1:])  # [B, T - 1]
        counted = batch.followed[:, :-1]  # [B, T - 1]
        return (logs * counted).sum(1) / counted.sum(1)

    @torch.no_grad()
    def encode_answers(self, ids: Tensor, valid: Tensor) -> Tensor:
        """Answers without questions, ids and valid [N, A] -> their targets [N, D], without gradient."""
        ids = ids.to(self.space.mean.device)
        valid = valid.to(self.space.mean.device)
        segments = segment_ids(valid, valid, None)  # [N, A]
        reader = self.decoder if self.teacher is None else self.teacher
        states = reader(ids, question_answer_mask(segments), question_answer_positions(segments))  # [N, A, D]
        return self.space(at(states, valid.sum(1) - 1))

    def inspect(self, batch: QuestionBatch) -> Inspection:
        teacher = None if self.teacher is None else at(self.read(batch, self.teacher), batch.pred_at)  # [B, D]
        return Inspection(teacher=teacher)

    def encoders(self) -> dict[str, Encoder]:
        return {"decoder": self.decoder} | ({} if self.teacher is None else {"teacher": self.teacher})

    def after_step(self, progress: Progress) -> None:
        if self.teacher is not None:
            self.teacher.update(self.decoder, progress)


def at(states: Tensor, positions: Tensor) -> Tensor:
    """states [B, T, D], one position in each row [B] -> [B, D]."""
    return gather_positions(states, positions[:, None])[:, 0]


def question_inputs(batch: QuestionBatch) -> EncoderInputs:
    """The decoder's inputs for whole rows, with or without answers: tokens, mask and positions."""
    segments = segment_ids(batch.valid, batch.hidden, batch.pred_at)  # [B, T]
    return EncoderInputs((batch.ids, question_answer_mask(segments), question_answer_positions(segments)), batch.valid)


def readout_latents(method: NanoJEPA, batch: QuestionBatch) -> TextLatents:
    """Target and predicted latent of every answer, and its tokens."""
    ids, valid = batch.answers()  # [B, A]
    return TextLatents(method.encode_answers(ids, valid), method.predict_from_context(batch), ids, valid)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    train = cache(lambda: questions(config.data, "train"))
    kept = context.asset("tokenizer.json")
    tokenizer = load_or_learn(config.tokenizer, lambda: texts_of(train()), kept, config.decoder.named_in("decoder"))
    collate = QuestionCollator.of(tokenizer)
    method = NanoJEPA(config, collate.tokenizer.vocabulary, context)
    vocab = collate.tokenizer.vocab_size
    max_len = method.decoder.max_len
    train_data = TokenizedQuestions(train, collate.tokenizer, max_len)
    eval_data = TokenizedQuestions(lambda: questions(config.data, "eval"), collate.tokenizer, max_len)

    tasks = QuestionTasks(
        name="synthetic-arithmetic" if config.data.source == "arithmetic" else "questions",
        splits=lambda: held_out_splits(config.data),
        train=train,
        prepare=collate.inputs(max_len, config.data.synthetic),
        encode_answers=lambda method, answers: method.encode_answers(*collate.answers(answers, max_len)),
        log_likelihood=NanoJEPA.question_log_likelihood,
        tokens=collate.asked,
        vocab=vocab,
    )
    return Experiment(
        method=method,
        train_data=train_data,
        eval_data=eval_data,
        collate=collate,
        embedding=Embedding(tasks.prepare, question_inputs, "decoder", "last", causal=True, note=PREDICTED),
        train=config.train,
        tasks=tasks.all,
        watch=tasks.watched,
        readable=ReadoutSource(readout_latents, collate.tokenizer.decode, vocab, same_answer),
        pictures=collate.pictures,
        unknown=lambda: train_data.unknown,
        notes=lambda: {"left_out": dict(train_data.counts + eval_data.counts), "vocabulary": vocab},
    )
