"""SimCLR baseline: match two random views of an image among those of all images of the batch (Chen et al. 2020).

NT-Xent: each view has to identify the other view of its image among those of the whole batch. Data, encoder and
views are those of `lejepa` with two global views; `lejepa` prevents collapse with a regulariser, SimCLR with negatives.
The embedding is the mean of the latents of all patches, before the projection.

Health is measured between the two views: the prediction is the first view's projection, the target the second's.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.distributed import gather_rows
from openjepa.core.encoder import Encoder
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Latents, Method, StepOutput
from openjepa.data.images.augment import AugmentConfig
from openjepa.data.images.batches import Images, ImageViews, two_view_collator
from openjepa.data.images.sources import ImageDataConfig
from openjepa.experiments.images import image_experiment
from openjepa.models.vit import Projected, ViT, ViTConfig
from openjepa.objectives.contrast import nt_xent


class Config(BaseConfig):
    """Everything that defines a SimCLR run.

    Data, encoder and training are those of the preset tiny of `i_jepa` and `lejepa`; augmentations, projection and
    temperature are the paper's for CIFAR-10 (its appendix B.9).
    """

    data: ImageDataConfig = ImageDataConfig()
    encoder: ViTConfig = ViTConfig(dim=96, depth=2, heads=4)
    augment: AugmentConfig = AugmentConfig(area=(0.08, 1.0), flip=0.5, jitter=0.8, grey=0.2)
    projection_dim: int = Field(128, ge=8)
    """width of the vectors that the loss compares"""
    temperature: float = Field(0.5, gt=0)
    """cosines are divided by it"""
    train: TrainConfig = TrainConfig(
        lr=2e-3,
        precision="bf16-mixed",
        threads=1,
        workers=1,
        health_every=250,
    )


class SimCLR(Method[ImageViews]):
    """An encoder, a projection with one hidden layer, and the loss between two views."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.student = ViT(config.encoder, config.data.size)
        dim = self.student.dim
        self.projector = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, config.projection_dim))

    def project(self, images: Tensor) -> Tensor:
        """images [B, 3, S, S] -> unit vectors [B, Z]."""
        return F.normalize(self.projector(self.student(images).mean(1)).float(), dim=-1)

    def forward(self, batch: ImageViews) -> StepOutput:
        views = self.project(batch.global_views.transpose(0, 1).flatten(0, 1))  # [2 B, Z]
        first, second = (gather_rows(view) for view in views.chunk(2))  # each [B of all ranks, Z]
        return StepOutput({"contrast": nt_xent(first, second, self.temperature)}, Latents(first, second.detach()))

    def predict_from_context(self, batch: ImageViews) -> Tensor:
        return self.project(batch.global_views[:, 0])

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student, "projected": Projected(self.student, self.projector)}

    def embed(self, batch: Images) -> Tensor:
        return self.student(batch.images).float().mean(1)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Reads no image yet."""
    method = SimCLR(config)
    grid = method.student.grid
    collate = two_view_collator(grid, config.data.size, config.augment)
    return image_experiment(method, config, grid, collate)
