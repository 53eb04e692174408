"""I-JEPA: predict the latents of an image's hidden patches from its visible ones (Assran et al. 2023).

The context encoder reads only the visible patches. A predictor estimates the latents of the hidden ones at their
positions, and a target encoder that reads the whole image gives the targets. In the paper only this EMA encoder
prevents collapse; here a regulariser on the context encoder's latents does so as well.

The embedding of an image is the mean of the context encoder's latents of all patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.encoder import Encoder
from openjepa.core.errors import ConfigError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.data.images.augment import AugmentConfig
from openjepa.data.images.batches import Images, MaskedImageCollator, MaskedImages
from openjepa.data.images.sources import ImageDataConfig
from openjepa.experiments.images import image_experiment
from openjepa.masking.blocks import PatchMaskConfig, build_masker, off_target
from openjepa.models.predictors import PredictorConfig, build_predictor
from openjepa.models.target import EMATarget, MomentumConfig, TargetKind, build_target
from openjepa.models.transformer import gather_positions, mean_pool
from openjepa.models.vit import ViT, ViTConfig
from openjepa.objectives.latent import build_objective
from openjepa.objectives.regularizers import RegularizerConfig
from openjepa.objectives.targets import TargetConfig, make_targets, target_layers
from openjepa.objectives.two_views import TwoViews


class Config(BaseConfig):
    """Everything that defines an I-JEPA run. Defaults are the preset tiny, measured in docs/lab-log/images.md."""

    FIRST = ("data", "encoder", "augment", "mask", "objective", "regularizer", "train")

    data: ImageDataConfig = ImageDataConfig()
    encoder: ViTConfig = ViTConfig(dim=96, depth=2, heads=4)
    augment: AugmentConfig = AugmentConfig()
    mask: PatchMaskConfig = PatchMaskConfig()
    predictor: PredictorConfig = PredictorConfig(width=96)
    target_encoder: TargetKind = "ema"
    """makes the targets: ema = an EMA of the context encoder, self = the context encoder itself, without gradient,
    frozen = its initialisation"""
    target: TargetConfig = TargetConfig(norm="standardize")
    momentum: MomentumConfig = MomentumConfig()
    objective: str = "smooth_l1"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    regularizer: RegularizerConfig = RegularizerConfig(weight=3.0, covariance=0.2)
    regularized: Literal["mean", "patches"] = "patches"
    """what the regulariser acts on: the mean of each image's visible patches, or every one of them"""
    invariance: float = Field(0.0, ge=0)
    """weight of pulling the means of the visible and of the hidden patches together, both encoded separately and both
    regularised; no effect without a regulariser; 0 = only the visible ones are regularised, one encoder pass less"""
    train: TrainConfig = TrainConfig(
        lr=2e-3,
        precision="bf16-mixed",
        threads=1,
        workers=1,
        health_every=250,
    )

    def unused_here(self) -> set[str]:
        return set() if self.target_encoder == "ema" else {"momentum"}


class IJEPA(Method[MaskedImages]):
    """Context encoder, target encoder, predictor and their loss."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.regularized == "patches" and config.invariance:
            raise ConfigError("invariance pulls means together: give invariance=0 with regularized=patches")
        self.config = config
        self.student = ViT(config.encoder, config.data.size)  # the context encoder
        self.teacher = build_target(config.target_encoder, self.student, config.momentum)  # None = the student itself
        self.predictor = build_predictor(config.predictor, self.student.dim, self.student.dim, self.student.max_len)
        self.distance = build_objective(config.objective)
        self.two_views = TwoViews(config.regularizer, config.invariance)

    def encode_context(self, batch: MaskedImages) -> Tensor:
        """Latents of the visible patches [B, V, D], which attend only to each other."""
        return self.student(batch.images, batch.context_at, batch.context_valid)

    def predict(self, batch: MaskedImages, context: Tensor) -> Tensor:
        """Estimated latents of the hidden patches [K, D], K = hidden patches of all images."""
        states = self.predictor(
            context, batch.context_at, batch.context_valid, None, batch.hidden_at, batch.hidden_valid
        )  # [B, M, D]
        return batch.pick(states, batch.hidden_valid)

    @torch.no_grad()
    def target_states(self, batch: MaskedImages) -> list[Tensor]:
        """All layers of the target encoder for the whole images, each [B, N, D]."""
        encoder = self.student if self.teacher is None else self.teacher
        return encoder.states(batch.images)

    def targets_at(self, batch: MaskedImages, states: Sequence[Tensor], positions: Tensor) -> Tensor:
        """Targets [K, D] from the latents at these positions [B, M], one for each hidden patch."""
        layers = [
            gather_positions(layer, positions) for layer in target_layers(self.config.target, states)
        ]  # each [B, M, D]
        return make_targets(self.config.target, [batch.pick(layer, batch.hidden_valid) for layer in layers])

    def forward(self, batch: MaskedImages) -> StepOutput:
        target = self.targets_at(batch, self.target_states(batch), batch.hidden_at)  # [K, D]
        context = self.encode_context(batch)  # [B, V, D]
        predicted = self.predict(batch, context)  # [K, D]
        if self.config.regularized == "mean":
            visible = mean_pool(context, batch.context_valid)  # [B, D]
        else:
            visible = batch.pick(context, batch.context_valid)  # [visible patches, D]
        hidden = self.encode_hidden(batch) if self.two_views.pulls else None  # [B, D]
        terms = {"prediction": self.distance(predicted, target), **self.two_views(visible, hidden, batch.draw)}
        return StepOutput(terms, self.distance.latents(predicted, target))

    def encode_hidden(self, batch: MaskedImages) -> Tensor:
        """Mean latent [B, D] of each image's hidden patches, encoded without the visible ones."""
        return mean_pool(self.student(batch.images, batch.hidden_at, batch.hidden_valid), batch.hidden_valid)

    def predict_from_context(self, batch: MaskedImages) -> Tensor:
        return self.predict(batch, self.encode_context(batch))

    def inspect(self, batch: MaskedImages) -> Inspection:
        states = self.target_states(batch)
        copied = self.targets_at(batch, states, batch.nearest_visible())  # [K, D]
        return batch.inspection(
            copied=self.distance.copied(copied, lambda: self.targets_at(batch, states, batch.hidden_at)),
            teacher=states[-1].float().mean(1) if isinstance(self.teacher, EMATarget) else None,
        )

    def embed(self, batch: Images) -> Tensor:
        return self.student(batch.images).float().mean(1)

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student} | ({} if self.teacher is None else {"teacher": self.teacher})

    def after_step(self, progress: Progress) -> None:
        if isinstance(self.teacher, EMATarget):
            self.teacher.update(self.student, progress)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Reads no image yet."""
    method = IJEPA(config)
    grid = method.student.grid
    return image_experiment(
        method,
        config,
        grid,
        collate=MaskedImageCollator(grid, build_masker(config.mask), config.augment),
        mask_ratio=config.mask.ratio if config.mask.strategy == "random" else None,
        remarks=lambda: off_target(config.mask, grid),
    )
