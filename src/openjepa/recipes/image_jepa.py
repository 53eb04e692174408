"""Image JEPA: predict the latents of hidden patches from the visible ones, or one view of an image from another.

`mode=masks` (I-JEPA, Assran et al. 2023): the student encodes the visible patches and no others, a predictor told the
places of the hidden ones estimates their latents, and a teacher that sees the image gives the targets.

`mode=views` (VICReg, Bardes et al. 2022; LeJEPA, Balestriero & LeCun 2025): two random views of an image pass the same
encoder, the projection of one predicts that of the other, and a regulariser keeps them from collapsing. No teacher, no
predictor; instead, the augmentations have to say what does not matter.

In both, the mean of the student's latents of all patches is the image's embedding.
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
from openjepa.core.method import Inspection, Latents, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.data.augment import AugmentConfig
from openjepa.data.image_batches import Images, ImageViews, MaskedImageCollator, MaskedImages, ViewCollator
from openjepa.data.image_inputs import ImageInputs, image_embedding
from openjepa.data.image_records import ImageDataConfig
from openjepa.data.image_tasks import image_tasks
from openjepa.data.images import raw_pixels, train_and_eval
from openjepa.masking.blocks import PatchMaskConfig, build_masker, off_target
from openjepa.models.predictors import PredictorConfig, ProjectorConfig, build_predictor, build_projector
from openjepa.models.target import EMATarget, MomentumConfig, TargetKind, build_target
from openjepa.models.transformer import mean_pool, take
from openjepa.models.vit import Projected, ViT, ViTConfig
from openjepa.objectives.latent import build_objective
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer, regularize_both
from openjepa.objectives.targets import TargetConfig, make_targets, target_layers
from openjepa.objectives.two_views import TwoViews


class Config(BaseConfig):
    """Everything that defines an image JEPA run."""

    FIRST = ("mode", "data", "encoder", "augment", "mask", "objective", "regularizer", "train")

    mode: Literal["masks", "views"] = "masks"
    """predict hidden patches, or one augmented view from another"""
    data: ImageDataConfig = ImageDataConfig()
    encoder: ViTConfig = ViTConfig()
    augment: AugmentConfig = AugmentConfig()
    mask: PatchMaskConfig = PatchMaskConfig()
    predictor: PredictorConfig = PredictorConfig()
    teacher: TargetKind = "ema"
    """mode=masks: whose latents are the targets: those of the student's average, its own, or its frozen start's"""
    teacher_reads: Literal["image", "hidden"] = "image"
    """mode=masks: the whole image, or the hidden patches alone: then a target holds nothing that the context shows"""
    target: TargetConfig = TargetConfig()
    momentum: MomentumConfig = MomentumConfig()
    projector: ProjectorConfig = ProjectorConfig()
    objective: str = "smooth_l1"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    regularizer: RegularizerConfig = RegularizerConfig()
    regularized: Literal["mean", "patches"] = "mean"
    """mode=masks: what must not collapse, the mean of the visible patches' latents or every one of them"""
    invariance: float = Field(0.0, ge=0)
    """mode=masks: weight of pulling the student's means of the visible and of the hidden patches together, both
    regularised; none without a regulariser; 0 = regularise the visible ones alone, one student pass less"""
    train: TrainConfig = TrainConfig()

    def unused_here(self) -> set[str]:
        if self.mode == "views":
            return {"mask", "predictor", "teacher", "teacher_reads", "target", "momentum", "regularized", "invariance"}
        return {"projector"} if self.teacher == "ema" else {"projector", "momentum"}


class MaskedImageJEPA(Method[MaskedImages]):
    """Student, teacher, predictor and their loss."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.regularized == "patches" and config.invariance:
            raise ConfigError("invariance pulls means together: give invariance=0 with regularized=patches")
        self.config = config
        self.student = ViT(config.encoder, config.data.size)
        self.teacher = build_target(config.teacher, self.student, config.momentum)
        self.predictor = build_predictor(config.predictor, self.student.dim, self.student.dim, self.student.max_len)
        self.distance = build_objective(config.objective)
        self.two_views = TwoViews(config.regularizer, config.invariance)

    def encode_context(self, batch: MaskedImages) -> Tensor:
        """The student's latents of the visible patches [B, V, D]."""
        return self.student(batch.images, batch.context_at, batch.context_valid)

    def predict(self, batch: MaskedImages, context: Tensor) -> Tensor:
        """The estimated latents of the hidden patches [M, D]."""
        states = self.predictor(
            context, batch.context_at, batch.context_valid, None, batch.hidden_at, batch.hidden_valid
        )  # [B, H, D]
        return states[batch.hidden_valid]

    def predict_from_context(self, batch: MaskedImages) -> Tensor:
        return self.predict(batch, self.encode_context(batch))

    def forward(self, batch: MaskedImages) -> StepOutput:
        target = self.targets(batch)  # [M, D]
        context = self.encode_context(batch)  # [B, V, D]
        predicted = self.predict(batch, context)  # [M, D]
        if self.config.regularized == "mean":
            visible = mean_pool(context, batch.context_valid)  # [B, D]
        else:
            visible = context[batch.context_valid]  # [visible patches, D]
        hidden = self.encode_hidden(batch) if self.two_views.pulls else None  # [B, D]
        terms = {"prediction": self.distance(predicted, target), **self.two_views(visible, hidden, batch.draw)}
        return StepOutput(terms, self.distance.latents(predicted, target))

    def encode_hidden(self, batch: MaskedImages) -> Tensor:
        """The student's mean latent of each image's hidden patches, read without the visible ones [B, D]."""
        return mean_pool(self.student(batch.images, batch.hidden_at, batch.hidden_valid), batch.hidden_valid)

    @torch.no_grad()
    def teacher_states(self, images: Tensor, *patches: Tensor) -> list[Tensor]:
        """All layers of the target encoder, for all patches or those given; see `ViT.states`."""
        return (self.student if self.teacher is None else self.teacher).states(images, *patches)

    def targets(self, batch: MaskedImages) -> Tensor:
        """The teacher's latents of the hidden patches [M, D]."""
        if self.config.teacher_reads == "image":
            layers = [take(state, batch.hidden_at) for state in self.teacher_states(batch.images)]
        else:
            layers = self.teacher_states(batch.images, batch.hidden_at, batch.hidden_valid)  # each [B, H, D]
        return self.as_targets(layers, batch)

    def as_targets(self, layers: Sequence[Tensor], batch: MaskedImages) -> Tensor:
        """All layers' latents at the hidden positions, each [B, H, D] -> [M, D]."""
        used = target_layers(self.config.target, layers)
        return make_targets(self.config.target, [layer[batch.hidden_valid] for layer in used])

    def inspect(self, batch: MaskedImages) -> Inspection:
        layers = self.teacher_states(batch.images)  # each [B, N, D]
        nearest = batch.nearest_visible()  # [B, H]
        copied = self.as_targets([take(layer, nearest) for layer in layers], batch)  # [M, D]
        follows = isinstance(self.teacher, EMATarget)  # no other teacher has a distance to keep
        return Inspection(
            rows=batch.hidden_valid.nonzero()[:, 0],
            positions=batch.hidden_at[batch.hidden_valid],
            copied=self.distance.copied(copied, lambda: self.targets(batch)),
            teacher=layers[-1].float().mean(1) if follows else None,
        )

    def embed(self, batch: Images) -> Tensor:
        return self.student(batch.images).float().mean(1)

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student} | ({} if self.teacher is None else {"teacher": self.teacher})

    def after_step(self, progress: Progress) -> None:
        if isinstance(self.teacher, EMATarget):
            self.teacher.update(self.student, progress)


class ViewImageJEPA(Method[ImageViews]):
    """One encoder, a projector, and the loss between two views."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.student = ViT(config.encoder, config.data.size)
        self.projector = build_projector(config.projector, self.student.dim)
        self.distance = build_objective(config.objective)
        self.regularizer = build_regularizer(config.regularizer)

    def project(self, images: Tensor) -> Tensor:
        """images [B, 3, S, S] -> what the loss sees [B, Z]."""
        return self.projector(self.student(images).mean(1))

    def predict_from_context(self, batch: ImageViews) -> Tensor:
        return self.project(batch.views[:, 0])

    def forward(self, batch: ImageViews) -> StepOutput:
        first, second = self.project(batch.views.transpose(0, 1).flatten(0, 1)).chunk(2)  # each [B, Z]
        terms = {"prediction": self.distance(first, second)}
        terms |= regularize_both(self.regularizer, first, second, batch.draw)
        return StepOutput(terms, Latents(first, second.detach()))

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student, "projected": Projected(self.student, self.projector)}

    def embed(self, batch: Images) -> Tensor:
        return self.student(batch.images).float().mean(1)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Reads no image yet."""
    train_data, eval_data = train_and_eval(config.data)
    masked = config.mode == "masks"
    method = MaskedImageJEPA(config) if masked else ViewImageJEPA(config)
    grid, pixels, masker = method.student.grid, config.data.size, build_masker(config.mask)
    collate = MaskedImageCollator(grid, masker, config.augment) if masked else ViewCollator(grid, config.augment)
    return Experiment(
        method=method,
        train_data=train_data,
        eval_data=eval_data,
        collate=collate,
        embedding=image_embedding(ImageInputs(pixels, grid)),
        train=config.train,
        mask_ratio=config.mask.ratio if masked and config.mask.strategy == "random" else None,
        tasks=lambda: image_tasks(config.data),
        baselines={"pixels": lambda inputs: raw_pixels(inputs, pixels)},
        pictures=collate.pictures,
        remarks=lambda: off_target(config.mask, grid) if masked else [],
    )
