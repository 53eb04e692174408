"""T-JEPA: predict the latents of hidden text spans from the tokens around them.

The student encodes the visible tokens, a predictor estimates the latents of the hidden ones at their positions, and
an EMA teacher that reads the clean text provides the targets. After training, the mean of the student's token latents
is the text's embedding. A token is never reconstructed.

Two choices decide whether latents encode meaning (measured in docs/lab-log). The teacher reads each hidden span
separately (`teacher_reads=spans`): a target then contains nothing of the context, so surface features cannot be copied.
And the student's mean of the context and its mean of the hidden part are pulled together and kept from collapsing by
VICReg (`invariance`, `regularizer`): with only the original's EMA, training starts too slowly and loses rank.

Two ways to hide: `drop` (default) removes hidden tokens before the student, which cannot leak and is cheaper (as in MAE
and data2vec 2.0); `mask` replaces them by [MASK], as the original T-JEPA did (preset `paper`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.encoder import Encoder
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.schedules import half_life_steps
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.text.masked import MaskedText, MaskedTextCollator
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import text_experiment, tokenizer_for
from openjepa.masking.spans import MaskConfig, SpanMasker
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.predictors import PredictorConfig, build_predictor
from openjepa.models.sentence_head import embedded
from openjepa.models.target import EMATarget, MomentumConfig
from openjepa.models.transformer import gather_positions, mean_pool, segment_mean
from openjepa.objectives.latent import build_objective
from openjepa.objectives.regularizers import RegularizerConfig
from openjepa.objectives.targets import TargetConfig, make_targets, target_layers
from openjepa.objectives.tokens import TokenHead
from openjepa.objectives.two_views import TwoViews


class Config(BaseConfig):
    """Everything that defines a T-JEPA run. Defaults are the preset tiny, measured in docs/lab-log/t-jepa.md."""

    FIRST = ("data", "encoder", "mask", "objective", "regularizer", "train")

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=4000)
    encoder: EncoderConfig = EncoderConfig(depth=1, max_len=128)
    mask: MaskConfig = MaskConfig(mean_span=16.0)
    predictor: PredictorConfig = PredictorConfig()
    target: TargetConfig = TargetConfig(norm="standardize")
    momentum: MomentumConfig = MomentumConfig()
    predict: Literal["tokens", "spans"] = "spans"
    """one latent per hidden token, or one per hidden span (the mean over its tokens)"""
    teacher_reads: Literal["text", "spans"] = "spans"
    """the whole clean text, or each hidden span separately: a target then contains nothing of the context"""
    objective: str = "smooth_l1"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    regularizer: RegularizerConfig = RegularizerConfig(weight=25.0, covariance=1.6, mean=0.3)
    invariance: float = Field(15.0, ge=0)
    """weight of pulling the student's means of the context and of the hidden part together, both regularised; no
    effect without a regulariser; 0 = regularise only the context, one student pass less"""
    mlm_weight: float = Field(0.0, ge=0)
    """weight of an added masked-token cross-entropy (a hybrid; 0 = a pure JEPA)"""
    train: TrainConfig = TrainConfig(
        steps=1150,
        batch_tokens=4096,
        batch_size=128,
        lr=3e-3,
        precision="bf16-mixed",
        threads=1,
        workers=1,
    )


class TJEPA(Method[MaskedText]):
    """Student, teacher, predictor and their loss."""

    def __init__(self, config: Config, vocab: Vocabulary, mask_id: int, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.mask_id = mask_id
        self.student = build_encoder(config.encoder, vocab, context)
        self.teacher = EMATarget(self.student, config.momentum.schedule())
        dim = self.student.dim
        self.predictor = build_predictor(config.predictor, dim, dim, self.student.max_len)
        self.distance = build_objective(config.objective)
        self.two_views = TwoViews(config.regularizer, config.invariance)
        self.token_head = TokenHead(dim, vocab.size) if config.mlm_weight else None

    def encode_context(self, batch: MaskedText) -> tuple[Tensor, Tensor | None]:
        """The student's latents of the visible tokens [B, V, D], and of [MASK] at the hidden ones [B, H, D]."""
        visible = batch.visible_tokens
        hidden = batch.hidden_tokens
        if self.config.mask.how == "drop":
            return self.student(gather_positions(batch.ids, visible.at), visible.valid, visible.at), None
        states = self.student(batch.ids.masked_fill(batch.hidden, self.mask_id), batch.valid)  # [B, T, D]
        return gather_positions(states, visible.at), gather_positions(states, hidden.at)

    def predict_tokens(self, batch: MaskedText, context: Tensor, masked: Tensor | None) -> Tensor:
        """The estimated latents of the hidden tokens [B, H, D]."""
        visible = batch.visible_tokens
        hidden = batch.hidden_tokens
        return self.predictor(context, visible.at, visible.valid, masked, hidden.at, hidden.valid)

    def predict_from_context(self, batch: MaskedText) -> Tensor:
        return self.units(self.predict_tokens(batch, *self.encode_context(batch)), batch)

    def forward(self, batch: MaskedText) -> StepOutput:
        target = self.targets(batch)  # [M, D]
        context, masked = self.encode_context(batch)  # [B, V, D]
        tokens = self.predict_tokens(batch, context, masked)  # [B, H, D]
        predicted = self.units(tokens, batch)  # [M, D]

        visible = mean_pool(context, batch.visible_tokens.valid)  # [B, D]
        hidden = self.encode_hidden(batch) if self.two_views.pulls else None  # [B, D]
        terms = {"prediction": self.distance(predicted, target), **self.two_views(visible, hidden, batch.draw)}
        if self.token_head is not None:
            terms["mlm"] = self.config.mlm_weight * self.token_loss(tokens, batch)
        return StepOutput(terms, self.distance.latents(predicted, target))

    def token_loss(self, tokens: Tensor, batch: MaskedText) -> Tensor:
        """Cross-entropy of the hidden tokens' ids, from their predicted latents [B, H, D]."""
        assert self.token_head is not None
        hidden = batch.hidden_tokens
        return self.token_head(
            batch.pick(tokens, hidden.valid), batch.pick(gather_positions(batch.ids, hidden.at), hidden.valid)
        )

    def encode_hidden(self, batch: MaskedText) -> Tensor:
        """The student's mean latent of each text's hidden tokens [B, D], each span read as a separate text."""
        hidden = batch.hidden_tokens
        latents = self.student(gather_positions(batch.ids, hidden.at), hidden.segment, hidden.positions)  # [B, H, D]
        return mean_pool(latents, hidden.valid)

    def targets(self, batch: MaskedText) -> Tensor:
        """The teacher's latents of the hidden tokens, or the mean of each hidden span [M, D]."""
        hidden = batch.hidden_tokens
        if self.config.teacher_reads == "text":
            layers = [gather_positions(state, hidden.at) for state in self.teacher.states(batch.ids, batch.valid)]
        else:
            ids = gather_positions(batch.ids, hidden.at)  # [B, H]
            layers = self.teacher.states(ids, hidden.segment, hidden.positions)  # each [B, H, D]
        return self.as_targets(layers, batch)

    def as_targets(self, layers: Sequence[Tensor], batch: MaskedText) -> Tensor:
        """All layers' latents at the hidden positions, each [B, H, D] -> [M, D]."""
        used = target_layers(self.config.target, layers)
        return make_targets(self.config.target, [self.units(layer, batch) for layer in used])

    def units(self, tokens: Tensor, batch: MaskedText) -> Tensor:
        """Latents of the hidden tokens [B, H, D] -> of what is predicted [M, D]: the same, or the mean of each span."""
        hidden = batch.hidden_tokens
        if self.config.predict == "tokens":
            return batch.pick(tokens, hidden.valid)
        return segment_mean(tokens, hidden.segment, hidden.positions, len(batch.row))

    def inspect(self, batch: MaskedText) -> Inspection:
        hidden = batch.hidden_tokens
        if self.config.predict == "tokens":
            rows = hidden.valid.nonzero()[:, 0]  # [M]
            positions = hidden.at[hidden.valid]  # [M]
        else:
            rows = batch.row
            positions = batch.start
        layers = self.teacher.states(batch.ids, batch.valid)  # each [B, T, D]
        nearest = batch.nearest_visible_tokens()  # [B, H]
        copied = self.as_targets([gather_positions(layer, nearest) for layer in layers], batch)  # [M, D]
        return Inspection(
            rows=rows,
            positions=positions,
            copied=self.distance.copied(copied, lambda: self.targets(batch)),
            teacher=mean_pool(layers[-1], batch.valid),
        )

    def embed(self, batch: MaskedText) -> Tensor:
        return embedded(self.student, batch.ids, batch.valid)

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student, "teacher": self.teacher}

    def after_step(self, progress: Progress) -> None:
        self.teacher.update(self.student, progress)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Trains or loads the tokenizer; reads no other data yet."""
    tokenizer = tokenizer_for(config, config.encoder.named_in("encoder"), context)
    method = TJEPA(config, tokenizer.vocabulary, tokenizer.mask_id, context)
    max_len = method.student.max_len
    collate = MaskedTextCollator(tokenizer, SpanMasker(config.mask.ratio, config.mask.mean_span))
    return text_experiment(
        method,
        config,
        rows=TextRows(tokenizer, max_len),
        collate=collate,
        inputs=collate.inputs(max_len),
        pictures=collate.pictures,
        mask_ratio=config.mask.ratio,
        notes=lambda: {"teacher_half_life_steps": round(half_life_steps(config.momentum.start), 1)},
    )
