"""Distances between predicted and target latents: one number per row, always in fp32.

A loss weight means the same at every width, because distances are means over D (or a cosine). The values quoted for
"the best constant" assume targets of zero mean and unit variance in each dimension (see `objectives.targets`); they are
the loss of a predictor that has learned nothing, the reference for a falling curve. 0 is perfect for all four.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from openjepa.core.distributed import mean_over_ranks
from openjepa.core.locate import Wanted, named_function
from openjepa.core.method import Latents, Objective

LEAST_LENGTH = 1e-3  # of predictions under a cosine: its square is the most that skill can lose by it


def mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over D, [M, D] x [M, D] -> [M].

    Range [0, inf), lower is better; the best constant scores 1. Its optimum is the conditional mean of the target.
    """
    return (predicted.float() - target.float()).square().mean(dim=-1)  # [M]


def l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over D, [M, D] x [M, D] -> [M].

    Range [0, inf), lower is better; the best constant scores sqrt(2 / pi) = 0.798 for Gaussian targets. Its optimum is
    the conditional median, so rare large targets pull less than under `mse`. Source: V-JEPA, Bardes et al. 2024, eq. 1.
    """
    return (predicted.float() - target.float()).abs().mean(dim=-1)  # [M]


def smooth_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Huber's loss with threshold 1, mean over D, [M, D] x [M, D] -> [M].

    e^2 / 2 where |e| < 1, |e| - 1/2 beyond. Range [0, inf), lower is better; the best constant scores 0.425 for
    Gaussian targets. On unnormalised targets far smaller than 1 it is half the squared error and can be tiny: its value
    (0.0026, say) means nothing by itself. Source: data2vec, Baevski et al. 2022, eq. 4.
    """
    return F.smooth_l1_loss(predicted.float(), target.float(), reduction="none").mean(dim=-1)  # [M]


def cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cosine similarity, [M, D] x [M, D] -> [M].

    Range [0, 2], lower is better; 1 = orthogonal, and the loss of a constant for targets of uniform direction. It
    ignores norms: where it is the objective, give `on_the_sphere` to `Latents`, so that skill uses the same space.
    A zero vector counts as orthogonal to everything. Source: BYOL, Grill et al. 2020, eq. 2 (halved).
    """
    return 1 - F.cosine_similarity(predicted.float(), target.float(), dim=-1)  # [M]


def on_the_sphere(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of `Latents` under a cosine: predictions of one common length [M, D], and unit targets [M, D].

    A cosine does not determine the length of a prediction, while skill is a squared error, in which unit predictions
    with a cosine below 0.5 lose to a constant. So they all get their optimal length, their mean cosine (at least
    LEAST_LENGTH, so that different predictions stay different): skill is then about the mean cosine squared for targets
    of uniform direction, and 0 for unrelated directions.
    """
    p = F.normalize(predicted.float(), dim=-1)
    t = F.normalize(target.float(), dim=-1)
    return (p * t).sum(-1).mean().clamp(min=LEAST_LENGTH) * p, t


WANTED = Wanted(
    ("predicted [M, D]", "target [M, D]"),
    "a tensor [M], the distance of each row",
    lambda found, predicted, target: isinstance(found, Tensor) and found.shape == predicted.shape[:1],
)
OBJECTIVES: dict[str, Objective] = {"mse": mse, "l1": l1, "smooth_l1": smooth_l1, "cosine": cosine}


@dataclass(frozen=True)
class Distance:
    """An objective as a loss: the mean over the rows of all ranks."""

    rows: Objective  # [M, D], [M, D] -> [M]

    def __call__(self, predicted: Tensor, target: Tensor) -> Tensor:
        """predicted, target [M, D] -> scalar with a graph; its DDP gradient is that of one process."""
        return mean_over_ranks(self.rows(predicted, target))

    def latents(self, predicted: Tensor, target: Tensor) -> Latents:
        """Both [M, D] in the space of the objective, where skill is measured: on the sphere for a cosine."""
        if self.rows is not cosine:
            return Latents(predicted, target)
        return Latents(*on_the_sphere(predicted.detach(), target))

    def copied(self, rows: Tensor, target: Callable[[], Tensor]) -> Tensor:
        """Copied latents [M, D] as predictions of `target()` [M, D], in the space of `latents`."""
        return on_the_sphere(rows, target())[0] if self.rows is cosine else rows


def build_objective(name: str) -> Distance:
    """The objective called `name` above, or any "package.module:function". Raises UserError for an unknown name."""
    return Distance(named_objective(name))


def named_objective(name: str) -> Objective:
    """The function behind `build_objective`: distances of rows."""
    return named_function("objective", name, OBJECTIVES, WANTED)
