"""Image JEPA: predict the latents of hidden patches from the visible ones, or one view of an image from another.

`mode=masks` (I-JEPA, Assran et al. 2023): the student encodes the visible patches and no others, a predictor told the
places of the hidden ones estimates their latents, and a teacher that sees the image gives the targets.

`mode=views` (VICReg, Bardes et al. 2022; LeJEPA, Balestriero & LeCun 2025): two random views of an image pass the same
encoder, the projection of one predicts that of the other, and a regulariser keeps them from collapsing. No teacher, no
predictor; instead, the augmentations have to say what does not matter.

In both, the mean of the student's latents of all patches is the image's embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.distributed import rank_weight
from openjepa.core.errors import ConfigError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Latents, Method, Progress, StepOutput
from openjepa.data.augment import AugmentConfig
from openjepa.data.image_batches import Images, ImageViews, MaskedImageCollator, MaskedImages, ViewCollator, clean
from openjepa.data.image_records import ImageDataConfig
from openjepa.data.image_tasks import image_tasks
from openjepa.data.images import raw_pixels, train_and_eval
from openjepa.masking.blocks import PatchMaskConfig, build_masker, off_target
from openjepa.models.predictors import PredictorConfig, ProjectorConfig, build_predictor, build_projector
from openjepa.models.target import EMATarget, MomentumConfig, TargetKind, build_target
from openjepa.models.transformer import mean_pool, take
from openjepa.models.vit import ViT, ViTConfig, image_layers
from openjepa.objectives.latent import mse, named_objective
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer, regularize_both
from openjepa.objectives.targets import TargetConfig, make_targets, target_layers


class Config(BaseConfig):
    """Everything that defines an image JEPA run."""

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
    """mode=masks: pull the student's means of the visible and of the hidden patches together, both regularised; times
    regularizer.weight, not without a regulariser; 0 = regularise the visible ones alone, one student pass less"""
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
        self.config, self.student = config, ViT(config.encoder, config.data.size)
        self.teacher = build_target(config.teacher, self.student, config.momentum)
        self.predictor = build_predictor(config.predictor, self.student.dim, self.student.dim, self.student.max_len)
        self.objective, self.regularizer = named_objective(config.objective), build_regularizer(config.regularizer)

    def see_context(self, batch: MaskedImages) -> Tensor:
        """The student's latents of the visible patches [B, V, D]."""
        return self.student(batch.images, batch.context_at, batch.context_valid)

    def predict(self, batch: MaskedImages, context: Tensor) -> Tensor:
        """The estimated latents of the hidden patches [M, D]."""
        seen, asked = (context, batch.context_at, batch.context_valid), (batch.hidden_at, batch.hidden_valid)
        return self.predictor(*seen, None, *asked)[batch.hidden_valid]  # [B, H, D] -> [M, D]

    def predict_from_context(self, batch: MaskedImages) -> Tensor:
        return self.predict(batch, self.see_context(batch))

    def forward(self, batch: MaskedImages) -> StepOutput:
        target = self.teach(batch)  # [M, D]
        context = self.see_context(batch)  # [B, V, D]
        predicted = self.predict(batch, context)  # [M, D]
        pooled = mean_pool(context, batch.context_valid)  # [B, D]
        terms = {"prediction": self.objective(predicted, target).mean() * rank_weight(len(target), target.device)}
        rows = pooled if self.config.regularized == "mean" else context[batch.context_valid]  # [B or visible, D]
        terms |= self.regularize(batch, rows)
        loss = torch.stack(list(terms.values())).sum()
        latents = self._latents(batch, predicted, target, pooled)
        return StepOutput(loss, latents, {name: term.detach() for name, term in terms.items()})

    @torch.no_grad()
    def teacher_states(self, images: Tensor, *patches: Tensor) -> list[Tensor]:
        """All layers of the target encoder, for all patches or those given; see `ViT.states`."""
        return (self.student if self.teacher is None else self.teacher).states(images, *patches)

    def teach(self, batch: MaskedImages) -> Tensor:
        """The targets [M, D]: the teacher's latents of the hidden patches."""
        if self.config.teacher_reads == "image":
            layers = [take(state, batch.hidden_at) for state in self.teacher_states(batch.images)]
        else:
            layers = self.teacher_states(batch.images, batch.hidden_at, batch.hidden_valid)  # each [B, H, D]
        used = target_layers(self.config.target, layers)
        return make_targets(self.config.target, [layer[batch.hidden_valid] for layer in used])

    def regularize(self, batch: MaskedImages, rows: Tensor) -> dict[str, Tensor]:
        """Terms that keep `rows` [R, D] apart, and, with invariance, the means of the hidden patches as well."""
        weight = self.config.invariance * self.config.regularizer.weight
        if weight == 0 or self.config.regularizer.name == "none":  # pulling without pushing collapses
            return self.regularizer(rows, batch.draw)
        other = mean_pool(self.student(batch.images, batch.hidden_at, batch.hidden_valid), batch.hidden_valid)  # [B, D]
        terms = regularize_both(self.regularizer, rows, other, batch.draw)
        return terms | {"invariance": weight * rank_weight(len(rows), rows.device) * mse(rows, other).mean()}

    def _latents(self, batch: MaskedImages, predicted: Tensor, target: Tensor, pooled: Tensor) -> Latents:
        latents = Latents(predicted.detach(), target, pooled.detach())
        if self.training:
            return latents
        latents.rows, latents.places = batch.hidden_valid.nonzero()[:, 0], batch.hidden_at[batch.hidden_valid]  # [M]
        whole, at = self.teacher_states(batch.images), batch.nearest_visible()  # layers x [B, N, D], [B, H]
        used = target_layers(self.config.target, whole)
        latents.copied = make_targets(self.config.target, [take(state, at)[batch.hidden_valid] for state in used])
        latents.context = self.embed(batch)  # [B, D]
        if isinstance(self.teacher, EMATarget):  # no other follows its student
            latents.teacher = whole[-1].float().mean(1)  # [B, D]
        return latents

    def embed(self, batch: Images) -> Tensor:
        return self.student(batch.images).float().mean(1)

    def scramble_hidden(self, batch: MaskedImages, generator: torch.Generator) -> MaskedImages:
        return batch.with_other_hidden(generator)

    def after_step(self, progress: Progress) -> None:
        if isinstance(self.teacher, EMATarget):
            self.teacher.update(self.student, progress)


class ViewImageJEPA(Method[ImageViews]):
    """One encoder, a projector, and the loss between two views."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.student = ViT(config.encoder, config.data.size)
        self.projector = build_projector(config.projector, self.student.dim)
        self.objective, self.regularizer = named_objective(config.objective), build_regularizer(config.regularizer)

    def project(self, images: Tensor) -> Tensor:
        """images [B, 3, S, S] -> what the loss sees [B, Z]."""
        return self.projector(self.student(images).mean(1))

    def predict_from_context(self, batch: ImageViews) -> Tensor:
        return self.project(batch.views[:, 0])

    def forward(self, batch: ImageViews) -> StepOutput:
        first, second = self.project(batch.views.transpose(0, 1).flatten(0, 1)).chunk(2)  # each [B, Z]
        terms = {"prediction": self.objective(first, second).mean() * rank_weight(len(first), first.device)}
        terms |= regularize_both(self.regularizer, first, second, batch.draw)
        loss = torch.stack(list(terms.values())).sum()
        latents = Latents(first.detach(), second.detach(), self.embed(batch) if not self.training else first.detach())
        return StepOutput(loss, latents, {name: term.detach() for name, term in terms.items()})

    def embed(self, batch: Images) -> Tensor:
        return self.student(batch.images).float().mean(1)

    def scramble_hidden(self, batch: ImageViews, generator: torch.Generator) -> ImageViews:
        return batch.with_other_hidden(generator)


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
        prepare=lambda inputs: clean(inputs, pixels, grid),
        train=config.train,
        tasks=lambda: image_tasks(config.data),
        baselines={"pixels": lambda inputs: raw_pixels(inputs, pixels)},
        layers=image_layers,
        pictures=collate.pictures,
        notes=lambda: {"mask_ratio": config.mask.ratio} if config.mask.strategy == "random" else {},
        remarks=lambda: off_target(config.mask, grid) if masked else [],
    )
