"""Penalties that keep latents from collapsing: VICReg and SIGReg, on the global batch, in fp32.

    terms = regularizer(z, batch.draw)      z [N, D]: the rows of this rank -> named scalars to add to the loss

Apply a regulariser to the tensor that can collapse (the encoder's pooled output or its projection), not only to the
predictor's output, which can look healthy on a collapsed encoder.

Rows are gathered over ranks with a differentiable all-gather, so the DDP gradient equals that of one process (a plain
all-reduce of statistics gives 1 / world_size of it). Every rank must call; rows per rank may differ. Weights carry
over between batch sizes, widths and world sizes: variance is a mean over dimensions, covariance a sum of squares
divided by D, SIGReg an integral that is *not* multiplied by N. Fewer than two rows have no statistics: every term is
then 0 with a graph, so that ranks stay in step in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from openjepa.core.compute import in_fp32
from openjepa.core.config import BaseConfig
from openjepa.core.distributed import gather_rows
from openjepa.core.errors import UserError
from openjepa.core.locate import Wanted, named_function
from openjepa.core.seeding import generator_for

Regularizer = Callable[[Tensor, int], dict[str, Tensor]]  # z [N, D], draw -> terms, each a scalar with a graph

STD_EPSILON = 1e-4  # inside the square root: bounds the gradient of the standard deviation at 0
KNOTS = 17  # of the trapezoid rule on [0, LAST_KNOT]; the integrand is even
LAST_KNOT = 3.0
GAUSSIAN_FLOOR = 1.0527  # N times SIGReg's expectation for rows drawn from N(0, I): integral of (1 - phi^2) phi
UNIT_NORM_TOLERANCE = 1e-3
UNIT_NORM_CHECK_EVERY = 64  # draws, on accelerators: the check waits for the device


class RegularizerConfig(BaseConfig):
    """What keeps the encoder's latents from collapsing, and how strongly."""

    FIRST = ("name", "weight")

    name: str = "vicreg"
    """none | vicreg | sigreg | package.module:function"""
    weight: float = Field(1.0, ge=0)
    """of the regulariser beside the prediction loss; means the same at every batch size, width and number of devices"""
    covariance: float = Field(0.04, ge=0)
    """vicreg only: weight of decorrelation beside variance's 1; the paper's 25 : 25 : 1 is 0.04"""
    mean: float = Field(0.0, ge=0)
    """vicreg only: weight of pulling the mean vector to 0, beside variance's 1; not in the paper, which lets latents
    lie on a cone"""


def build_regularizer(config: RegularizerConfig) -> Regularizer:
    """The configured regulariser with its weight applied to every term. Raises UserError for an unknown name."""
    regularizer = named_regularizer(config.name)
    if regularizer is vicreg:
        regularizer = partial(vicreg, covariance_weight=config.covariance, mean_weight=config.mean)
    return lambda z, draw: {name: config.weight * term for name, term in regularizer(z, draw).items()}


def regularize_views(regularizer: Regularizer, views: Sequence[Tensor], draw: int) -> dict[str, Tensor]:
    """The mean of each term over views [N, D] of the same rows, each regularised by itself.

    VICReg adds its two views' terms (Bardes et al. 2022, eq. 6): that is `weight=2` here.
    """
    terms = [regularizer(view, draw) for view in views]
    return {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}


def no_regularizer(z: Tensor, draw: int = 0) -> dict[str, Tensor]:
    """No terms."""
    return {}


def vicreg(
    z: Tensor,
    draw: int = 0,
    *,
    variance_weight: float = 1.0,
    covariance_weight: float = 0.04,
    mean_weight: float = 0.0,
) -> dict[str, Tensor]:
    """Variance hinge and decorrelation, z [N, D] -> terms "variance" and "covariance". All >= 0, lower is better.

    variance   = mean_j max(0, 1 - sqrt(Var z_j + 1e-4)), in [0, 0.99]: 0 when every dimension has a std of at least 1
    covariance = sum_{i != j} C_ij^2 / D; for independent N(0, 1) rows about (D - 1) / (N - 1), the bias of few samples

    Weights 1 and 0.04 are the paper's 25 : 1, with its 25 for invariance scaled to 1. The paper's penalty ignores the
    mean vector, so it treats collapse and redundancy but not anisotropy (SIGReg does). With a `mean_weight` there is a
    third term, ours: "mean" = mean_j (mean of z_j)^2, about Var / N for centered rows. `draw` is unused.
    Source: VICReg, Bardes et al. 2022, eq. 1-4 (per branch; `regularize_views` averages them).
    """
    rows = gather_rows(z).float()  # [N, D] of all ranks
    n, d = rows.shape
    names = ("variance", "covariance", "mean") if mean_weight else ("variance", "covariance")
    if n < 2:
        return {name: _zero(rows) for name in names}
    with in_fp32(rows.device):
        mean = rows.mean(dim=0)  # [D]
        centered = rows - mean
        covariances = centered.T @ centered / (n - 1)  # [D, D]
    variances = covariances.diagonal()  # [D]
    hinge = (1 - (variances + STD_EPSILON).sqrt()).clamp(min=0).mean()
    redundancy = (covariances - torch.diag(variances)).square().sum() / d
    values = (variance_weight * hinge, covariance_weight * redundancy, mean_weight * mean.square().mean())
    return dict(zip(names, values, strict=False))


def sigreg(z: Tensor, draw: int = 0, *, directions: int = 256) -> dict[str, Tensor]:
    """Distance of z [N, D] from N(0, I) in random directions -> term "sigreg". Range [0, 4), lower is better.

    For x = z a with a unit direction a: integral over [-3, 3] of |ecf_x(t) - phi(t)|^2 phi(t) dt, phi(t) = exp(-t^2/2),
    by the trapezoid rule on 17 knots; mean over directions. Directions are addressed by `draw`, equal on all ranks, new
    every batch. The paper's statistic T (Epps-Pulley) is N times this; dividing by N makes the loss of a given
    distribution the same at every batch size, so the paper's lambda on T is lambda * N here.

    Values: rows from N(0, I) 1.05 / N (which `sigreg_ratio` turns into 1); all rows at 0 give 0.402; unit-norm rows
    about 0.40 however they lie, because each direction then has a variance of 1 / D: they raise UserError.
    Cost: directions x 17 x N sines and cosines, kept for the backward pass.
    Source: LeJEPA, Balestriero & LeCun 2025; Epps & Pulley 1983.
    """
    rows = gather_rows(z).float()  # [N, D] of all ranks
    if rows.shape[0] < 2:
        return {"sigreg": _zero(rows)}
    if rows.device.type == "cpu" or draw % UNIT_NORM_CHECK_EVERY == 0:
        _refuse_unit_norm(rows)
    axes = torch.randn(rows.shape[1], directions, generator=generator_for(0, "sigreg", draw)).to(rows.device)  # [D, A]
    knots = torch.linspace(0, LAST_KNOT, KNOTS, device=rows.device)  # [K]
    phi = torch.exp(-knots.square() / 2)  # [K], the characteristic function of N(0, 1)
    with in_fp32(rows.device):
        angles = (rows @ (axes / axes.norm(dim=0)))[:, :, None] * knots  # [N, A, K]
    gap = (angles.cos().mean(dim=0) - phi).square() + angles.sin().mean(dim=0).square()  # [A, K] = |ecf - phi|^2
    return {"sigreg": 2 * torch.trapezoid(gap * phi, knots, dim=-1).mean()}


def sigreg_ratio(value: float, rows: int) -> float:
    """SIGReg of `rows` rows (over all ranks) relative to Gaussian rows: 1 = at the floor, higher = further away."""
    return value * rows / GAUSSIAN_FLOOR


WANTED = Wanted(
    ("z [N, D]", "draw"),
    "a dict of names to tensors of one number",
    lambda found, *_: isinstance(found, dict) and all(isinstance(t, Tensor) and t.ndim == 0 for t in found.values()),
)
REGULARIZERS: dict[str, Regularizer] = {"none": no_regularizer, "vicreg": vicreg, "sigreg": sigreg}


def named_regularizer(name: str) -> Regularizer:
    """The regulariser called `name` above, or any "package.module:function". Raises UserError for an unknown name."""
    return named_function("regularizer", name, REGULARIZERS, WANTED)


def _zero(rows: Tensor) -> Tensor:
    return rows.sum() * 0.0


def _refuse_unit_norm(rows: Tensor) -> None:
    norms = rows.detach().norm(dim=-1)  # [N]
    if bool(((norms - 1).abs() < UNIT_NORM_TOLERANCE).all()):
        raise UserError(
            "sigreg got rows of unit norm and cannot change: never L2-normalise before SIGReg; "
            "pass the encoder's or projector's raw output"
        )
