"""The one interface every JEPA implements, and the records it hands to the rest of the toolkit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.errors import ConfigError

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Progress:
    """Where a run is. Schedules and EMA momentum are pure functions of this."""

    step: int
    total_steps: int

    @property
    def fraction(self) -> float:
        """Part of the run that is done, in [0, 1]."""
        return min(1.0, self.step / max(1, self.total_steps))


@dataclass
class Latents:
    """Detached, row-aligned latents of one step: everything the health metrics ever see."""

    predicted: Tensor  # [M, D] predictions of the hidden parts
    target: Tensor  # [M, D] their targets, in the space of the loss
    context: Tensor  # [B, C] pooled embedding of each row, as `Method.embed` would give it
    rows: Tensor | None = None  # [M] int64, which row of the batch each prediction belongs to
    places: Tensor | None = None  # [M] int64, position of each prediction, for the position-wise mean
    copied: Tensor | None = None  # [M, D] target-space latent of the nearest visible place, for the copy baseline
    teacher: Tensor | None = None  # [B, C] the target encoder's pooled embedding, for the student-teacher distance


@dataclass
class StepOutput:
    """What one training pass returns. Not frozen: Fabric rebuilds it."""

    loss: Tensor  # scalar, the only tensor backward() is called on
    latents: Latents
    terms: dict[str, Tensor] = field(default_factory=dict)  # detached weighted scalar parts that sum to loss


class Method(nn.Module, ABC, Generic[B]):
    """Networks and objective. Knows nothing of devices, optimisers, files or logging.

    A method that predicts through a module of its own calls it `predictor`: `train.predictor_only` trains it alone.
    `forward` is the training pass because DDP, FSDP, Fabric and torch.compile all hook `forward`.
    Subclasses are final: wrap a method to change it, do not inherit from it.
    """

    @abstractmethod
    def forward(self, batch: B) -> StepOutput:
        """The training pass."""

    @abstractmethod
    def embed(self, batch: B) -> Tensor:
        """[B, D] one vector per row from the whole, unmasked input: what probes, exports and demos use."""

    @abstractmethod
    def predict_from_context(self, batch: B) -> Tensor:
        """[M, D] predictions that may read the context view only. The leak audit holds it to that."""

    @abstractmethod
    def scramble_hidden(self, batch: B, generator: torch.Generator) -> B:
        """The same batch with other content in its hidden parts only; the prediction must not move."""

    def after_step(self, progress: Progress) -> None:
        """Called by the loop after each optimiser step. EMA targets move here. Default: nothing."""


def predictor_of(method: Method) -> nn.Module:
    """The method's predictor. Raises ConfigError if it has none."""
    predictor = getattr(method, "predictor", None)
    if not isinstance(predictor, nn.Module):
        raise ConfigError(f"train.predictor_only: {type(method).__name__} has no predictor; set it to 0")
    return predictor


Masker = Callable[[Tensor, torch.Generator], Tensor]  # valid [N] bool -> hidden [N] bool, 1 <= hidden < valid
Objective = Callable[[Tensor, Tensor], Tensor]  # predicted [M, D], target [M, D] -> [M] distances
Hook = Callable[[Progress, StepOutput, dict[str, float]], None]
