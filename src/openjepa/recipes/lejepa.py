"""LeJEPA: one encoder, several random views of an image, and every view predicts their mean (Balestriero & LeCun 2025).

The views are crops in other colours: global ones show most of an image, local ones a small part of it at a lower
resolution, so that they cost less. Each view's projection has to predict the mean of the projections of the global
views, and a regulariser keeps the projections from collapsing: SIGReg, or VICReg (Bardes et al. 2022). There is no
target encoder, no stop-gradient and no predictor; instead, the augmentations define what the embedding ignores.

    loss = prediction_weight * mean over views of (z_v - mean of the global z)^2, a mean over dimensions as well
         + regularizer.weight * mean over views of regulariser(z_v)

The paper's loss is (1 - lambda) * prediction + lambda * SIGReg, with a SIGReg that is N times ours, N = images a batch:
it is prediction_weight = 1 - lambda and regularizer.weight = lambda * N. VICReg's invariance, the squared distance of
two views from each other, is 4 times the prediction here.

The embedding of an image is the mean of the encoder's latents of all patches, before the projector.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig, Interval, TrainConfig
from openjepa.core.distributed import mean_over_ranks
from openjepa.core.encoder import Encoder
from openjepa.core.errors import ConfigError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Latents, Method, StepOutput
from openjepa.data.images.augment import AugmentConfig
from openjepa.data.images.batches import Crops, Images, ImageViews, ViewCollator
from openjepa.data.images.sources import ImageDataConfig
from openjepa.experiments.images import image_experiment
from openjepa.models.predictors import ProjectorConfig, build_projector
from openjepa.models.vit import Projected, ViT, ViTConfig
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer, regularize_views
from openjepa.objectives.views import distance_to_global_mean


class Config(BaseConfig):
    """Everything that defines a LeJEPA run. Defaults are the preset tiny, measured in docs/lab-log/images.md."""

    FIRST = ("data", "encoder", "global_views", "local_views", "augment", "regularizer", "train")

    data: ImageDataConfig = ImageDataConfig()
    encoder: ViTConfig = ViTConfig(dim=96, depth=2, heads=4)
    global_views: int = Field(2, ge=1)
    """views of each image at its full size; their mean is the target"""
    local_views: int = Field(2, ge=0)
    """views of each image that show less of it at a smaller size"""
    local_size: int = Field(24, ge=1)
    """side in pixels of local views; encoder.patch must divide it"""
    augment: AugmentConfig = AugmentConfig(area=(0.8, 1.0), jitter=0.5)
    """of all views; `area` is that of the global ones"""
    local_area: Interval = (0.4, 0.9)
    """least and largest part of the image that a local view shows"""
    projector: ProjectorConfig = ProjectorConfig(kind="none")
    prediction_weight: float = Field(1.0, gt=0)
    """of the distance of each view's projection to the mean of the global views'; 1 - lambda is the paper's"""
    regularizer: RegularizerConfig = RegularizerConfig(name="sigreg", weight=10.0)
    """of the projections of each view; lambda * images a batch is the paper's weight of SIGReg"""
    train: TrainConfig = TrainConfig(
        lr=2e-3,
        precision="bf16-mixed",
        threads=1,
        workers=1,
        health_every=250,
    )

    def unused_here(self) -> set[str]:
        return set() if self.local_views else {"local_size", "local_area"}


class LeJEPA(Method[ImageViews]):
    """An encoder, a projector, and the loss between any number of views."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.prediction_weight = config.prediction_weight
        self.student = ViT(config.encoder, config.data.size)
        self.projector = build_projector(config.projector, self.student.dim)
        self.regularizer = build_regularizer(config.regularizer)

    def project(self, views: Tensor) -> Tensor:
        """views of one size [B, V, 3, S, S] -> their projections [V, B, Z]."""
        images = views.transpose(0, 1).flatten(0, 1)  # [V B, 3, S, S]
        embeddings = self.student(images).mean(1)  # [V B, D]
        return self.projector(embeddings).unflatten(0, (views.shape[1], -1))

    def forward(self, batch: ImageViews) -> StepOutput:
        views = global_views = self.project(batch.global_views)  # [G, B, Z]
        if batch.has_local_views:
            views = torch.cat([global_views, self.project(batch.local_views)])  # [G + L, B, Z]
        distance = distance_to_global_mean(views, global_views)  # [B]
        terms = {"prediction": self.prediction_weight * mean_over_ranks(distance)}
        terms |= regularize_views(self.regularizer, views.unbind(), batch.draw)
        return StepOutput(terms, self.held_out_view(views, global_views))

    def held_out_view(self, views: Tensor, global_views: Tensor) -> Latents:
        """For health: a local view as a prediction of the global ones' mean; or one global view, of the others'."""
        if len(views) > len(global_views):
            return Latents(views[len(global_views)], global_views.mean(0).detach())
        return Latents(global_views[0], global_views[1:].mean(0).detach())

    def predict_from_context(self, batch: ImageViews) -> Tensor:
        return self.project(batch.context_view)[0]

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student, "projected": Projected(self.student, self.projector)}

    def embed(self, batch: Images) -> Tensor:
        return self.student(batch.images).float().mean(1)


def require_whole_patches(config: Config) -> None:
    """Raises ConfigError if local views cannot be cut into patches."""
    if config.local_views and config.local_size % config.encoder.patch:
        raise ConfigError(
            f"local_size={config.local_size} cannot be cut into patches of {config.encoder.patch}; let encoder.patch "
            "divide local_size"
        )


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Reads no image yet."""
    require_whole_patches(config)
    method = LeJEPA(config)
    grid = method.student.grid
    pixels = config.data.size
    local = config.augment.model_copy(update={"area": config.local_area})
    collate = ViewCollator(
        grid,
        global_crops=Crops(config.global_views, config.augment, pixels),
        local_crops=Crops(config.local_views, local, config.local_size),
    )
    return image_experiment(method, config, grid, collate)
