"""The interface every JEPA implements, and the records it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.encoder import Encoder
from openjepa.core.errors import ConfigError, UserError
from openjepa.core.progress import Progress

B = TypeVar("B", bound=Batch)


@dataclass
class Latents:
    """Predictions and their targets, row by row, in the space in which skill is measured. Both detached."""

    predicted: Tensor  # [M, D]
    target: Tensor  # [M, D]
    target_had_graph: bool = False  # whether the target came with a gradient graph: the loss may then train it

    def __post_init__(self) -> None:
        self.target_had_graph |= self.target.requires_grad
        self.predicted = self.predicted.detach()
        self.target = self.target.detach()


@dataclass
class StepOutput:
    """What one pass over a batch returns. Not frozen: Fabric rebuilds it."""

    terms: dict[str, Tensor]  # weighted scalars with a graph; their sum is the loss
    latents: Latents | None = None  # may be None in training, where they are not used

    @property
    def loss(self) -> Tensor:
        """The scalar that backward() is called on. Raises UserError without a term, or if one is no scalar."""
        if not self.terms:
            raise UserError("the loss has no term: return StepOutput({name: scalar}, latents)")
        for name, term in self.terms.items():
            if term.ndim:
                raise UserError(f"the term {name} of the loss is no scalar but {list(term.shape)}: use mean_over_ranks")
        return torch.stack(list(self.terms.values())).sum()


@dataclass
class Inspection:
    """Diagnostics of one batch for health checks; M predictions in the order of `Latents`. None = not known."""

    rows: Tensor | None = None  # [M] int64, which row of the batch each prediction belongs to
    positions: Tensor | None = None  # [M] int64, where in its row, for the position-wise mean
    copied: Tensor | None = None  # [M, D] target-space latent of the nearest visible position, for the copy baseline
    teacher: Tensor | None = None  # [B, C] the target encoder's pooled embedding, for the student-teacher distance


class Method(nn.Module, ABC, Generic[B]):
    """Networks and objective. Independent of devices, optimisers, files and logging.

    A module that makes the predictions is called `predictor`: `train.predictor_only_fraction` is the part of the run
    that trains only it.
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
        """[M, D] predictions that may read the context view only. The leak audit tests this."""

    def as_queries(self, vectors: Tensor) -> Tensor:
        """Embeddings of texts [B, D] -> the same texts' as queries of a search [B, D]. Default: no difference."""
        return vectors

    def encoders(self) -> Mapping[str, Encoder]:
        """The encoders by name, such as "student" and "teacher", for sweeps and exports. Default: none."""
        return {}

    def inspect(self, batch: B) -> Inspection:
        """Diagnostics of one batch, in eval mode and without gradients. Default: none."""
        return Inspection()

    def after_step(self, progress: Progress) -> None:
        """Called by the loop after each optimiser step. EMA targets move here. Default: nothing.

        `progress` is that of the step just taken, numbered from 0: the last one is total_steps - 1.
        """


def latents_of(method: nn.Module, output: StepOutput) -> Latents:
    """The latents of a pass in eval mode. Raises UserError if it has none."""
    if output.latents is None:
        raise UserError(f"{type(method).__name__} gives no latents in eval mode: return StepOutput(terms, latents)")
    return output.latents


def predictor_of(method: Method) -> nn.Module:
    """The method's predictor. Raises ConfigError if it has none."""
    predictor = getattr(method, "predictor", None)
    if not isinstance(predictor, nn.Module):
        raise ConfigError(f"train.predictor_only_fraction: {type(method).__name__} has no predictor; set it to 0")
    return predictor


Objective = Callable[[Tensor, Tensor], Tensor]  # predicted [M, D], target [M, D] -> [M] distances
Hook = Callable[[Progress, StepOutput, dict[str, float]], None]
