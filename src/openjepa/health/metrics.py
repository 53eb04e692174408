"""Metrics of a set of latents: rank, spread, direction, scale. Pure functions, and `health`, which computes all.

No single number detects every collapse: rank and cosine are invariant to scale, scale to rank, and none of them detects
latents that encode only their position. `health.verdict` combines them. Each function takes [N, D] rows,
computes in fp64 and returns a float that is defined for degenerate input (no rows, one row, all rows equal); a
NaN in the latents gives NaN, and `health` counts it. "Equal" means up to fp32 rounding (1e-6 of the norm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from openjepa.core.seeding import generator_for
from openjepa.health.skill import (
    NEGLIGIBLE,
    alignment,
    pair_cosine,
    random_pair_cosine,
    skill,
    skill_copy,
    skill_position,
    unit_rows,
    within_share,
)

MOST_ROWS = 2048  # of either kind; more would cost time and change no verdict
LIDAR_RIDGE = 1e-4  # of the mean variance, added to the within-class scatter


@dataclass
class HealthSample:
    """The inputs of the metrics from held-out batches: B rows and the M predictions made in them. Detached."""

    predicted: Tensor  # [M, D]
    target: Tensor  # [M, D] in the space of the loss
    embedding: Tensor  # [B, C] of each row, as `Method.embed` gives it
    rows: Tensor | None = None  # [M] int64, the row of each prediction
    positions: Tensor | None = None  # [M] int64, where in its row, for the position-wise mean
    copied: Tensor | None = None  # [M, D] target-space latent of the nearest visible position, for the copy baseline
    teacher: Tensor | None = None  # [B, C] the target encoder's pooled embedding, for the student-teacher distance


def health(latents: HealthSample) -> dict[str, float]:
    """Compute every metric that these latents allow, by name. At most 2048 rows of each kind are used, a fixed sample.

    `rank_cap` = min(N, D) bounds the ranks; with N < 4 D they are mostly about N. `nonfinite` is the share of
    NaN or infinite values; where it is above 0, the metrics that touch them are NaN.
    """
    latents = _subsample(latents)
    context = latents.embedding
    predicted = latents.predicted
    target = latents.target
    values = torch.cat([x.flatten().float() for x in (context, predicted, target)])
    found = {"nonfinite": float((~values.isfinite()).double().mean()) if len(values) else 0.0}
    found |= _embedding_metrics(context)
    for name, x in (("target", target), ("predicted", predicted)):
        found |= {
            f"{name}_rank_frac": effective_rank(x) / max(1, min(x.shape)),
            f"{name}_spread": spread(x),
            f"{name}_std": std(x),
        }
    found |= {
        "skill": skill(predicted, target),
        "pair_cosine": pair_cosine(predicted, target),
        "random_pair_cosine": random_pair_cosine(predicted, target),
        "alignment": alignment(predicted, target),
    }
    if latents.positions is not None:
        found["skill_position"] = skill_position(predicted, target, latents.positions)
        found["position_share"] = position_share(target, latents.positions)
        found["predicted_position_share"] = position_share(predicted, latents.positions)
    if latents.rows is not None:
        found["within_row_share"] = within_share(target, latents.rows)
        found["predicted_within_row_share"] = within_share(predicted, latents.rows)
        found["lidar"] = lidar(target, latents.rows)
    if latents.copied is not None:
        found["skill_copy"] = skill_copy(predicted, target, latents.copied)
    if latents.teacher is not None:
        found["teacher_distance"] = teacher_distance(context, latents.teacher)
    return found


def _embedding_metrics(context: Tensor) -> dict[str, float]:
    centered = singular_values(_centre(context))  # the one decomposition that the centered metrics share
    cap = min(context.shape)
    rank = rank_of(centered)
    return {
        "rank": rank,
        "rank_cap": float(cap),
        "rank_frac": rank / max(1, cap),
        "rank_raw": effective_rank(context, centre=False),
        "top_share": top_share(centered),
        "spread": spread(context),
        "mean_cosine": mean_cosine(context),
        "uniformity": uniformity(context),
        "scale": scale(context),
        "std": std(context),
        "samples": float(context.shape[0]),
    }


def singular_values(x: Tensor) -> Tensor:
    """Singular values of x [N, D], largest first, from the smaller Gram matrix in fp64. NaN if x is not finite."""
    x = x.double()
    if not x.isfinite().all():
        return x.new_full((min(x.shape),), math.nan)
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


def rank_of(singular: Tensor) -> float:
    """exp(entropy of the singular values normed to sum 1), in [1, number of values]; 0 if all are 0."""
    total = singular.sum()
    if total == 0:
        return 0.0
    return float(torch.special.entr(singular / total).sum().exp())


def effective_rank(x: Tensor, centre: bool = True) -> float:
    """Effective number of dimensions of x [N, D], in [0, min(N, D)], higher better; 0 = all rows equal.

    Not centered it is RankMe, which a common offset of all rows lowers to 1. Invariant to rotation and scale.
    Source: Roy & Vetterli 2007; RankMe, Garrido et al. 2023, eq. 1-2 (whose 1e-7 only guards log 0).
    """
    return rank_of(singular_values(_centre(x) if centre else x))


def top_share(singular: Tensor) -> float:
    """Share of the variance on the first principal axis, from centered singular values. [1 / cap, 1], lower better.

    0 if there is no variance.
    """
    energy = singular.square()
    total = energy.sum()
    return 0.0 if total == 0 else float(energy.max() / total)


def spread(x: Tensor) -> float:
    """Variance relative to the mean squared norm, in [0, 1], higher better; 0 = all rows equal, 1 = mean at the origin.

    1 - spread is about the mean cosine of two rows, but exact near collapse, where cosines round to 1.
    """
    x = x.double()
    energy = x.square().sum()
    return 0.0 if energy == 0 else float(_centre(x).square().sum() / energy)


def mean_cosine(x: Tensor) -> float:
    """Mean cosine over all pairs of different rows, in [-1 / (N - 1), 1], lower better; near 1 = anisotropic, a cone.

    Source: Ethayarajh 2019 (anisotropy). A zero vector has cosine 0. Fewer than two rows: 0.
    """
    n = x.shape[0]
    if n < 2:
        return 0.0
    unit = unit_rows(x)
    return float((unit.sum(dim=0).square().sum() - unit.square().sum()) / (n * (n - 1)))


def uniformity(x: Tensor) -> float:
    """log E exp(-2 |x - y|^2) over pairs of different rows on the unit sphere, in [-8, 0], lower better.

    0 = all rows equal; -4 = spread over a sphere of many dimensions. Source: Wang & Isola 2020, eq. 4 with t = 2.
    """
    n = x.shape[0]
    if n < 2:
        return 0.0
    unit = unit_rows(x)
    squares = unit.square().sum(dim=1)  # [N], 1 but for zero vectors
    potential = torch.exp(4 * unit @ unit.T - 2 * squares - 2 * squares[:, None])  # [N, N]
    return float(((potential.sum() - n) / (n * (n - 1))).log())


def scale(x: Tensor) -> float:
    """Mean norm of the rows, in [0, inf). Healthy is stable: compare it with step 0 of the same run."""
    return float(x.double().norm(dim=1).mean()) if x.shape[0] else 0.0


def std(x: Tensor) -> float:
    """Standard deviation of each dimension over rows, mean over dimensions, in [0, inf). Healthy is stable."""
    return float(x.double().std(dim=0).mean()) if x.shape[0] > 1 else 0.0


def position_share(x: Tensor, positions: Tensor) -> float:
    """Share of the variance of x [M, D] explained by `positions` [M], in [0, 1], lower better; 1 = only position."""
    share = 1 - within_share(x, positions)
    return share if math.isnan(share) else min(1.0, max(0.0, share))


def teacher_distance(student: Tensor, teacher: Tensor) -> float:
    """E |s - t|^2 / (Var s + Var t) for centered [B, C] embeddings of the same rows, in [0, 2].

    0 = equal up to an offset, 1 = unrelated. Healthy is small: a teacher far from its student lags behind it.
    """
    s = _centre(student)
    t = _centre(teacher)
    variance = s.square().sum() + t.square().sum()
    return 0.0 if variance == 0 else float((s - t).square().sum() / variance)


def lidar(x: Tensor, classes: Tensor) -> float:
    """Effective rank of between-class relative to within-class scatter, in [0, min(classes - 1, D)], higher better.

    x [M, D]; `classes` [M] int64, here the rows of the batch: views or parts of the same input form a class. Classes of
    one are left out; fewer than two classes give 0. Source: LiDAR, Thilak et al. 2024, with a relative ridge, so that
    the value does not depend on scale, and any number of views.
    """
    _, index, counts = classes.unique(return_inverse=True, return_counts=True)
    several = (counts > 1)[index]
    x = x[several].double()
    _, index, counts = classes[several].unique(return_inverse=True, return_counts=True)
    if not x.isfinite().all():
        return math.nan
    if len(counts) < 2 or spread(x) == 0:
        return 0.0
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, index, x) / counts.unsqueeze(1)  # [G, D]
    between = means - means.mean(dim=0)  # [G, D]
    within = x - means[index]  # [M, D]
    scatter = between.T @ between / (len(counts) - 1)  # [D, D]
    noise = within.T @ within / max(1, x.shape[0] - len(counts))  # [D, D]
    ridge = LIDAR_RIDGE * (noise.trace() + scatter.trace()) / x.shape[1]
    lower = torch.linalg.cholesky(noise + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device))
    half = torch.linalg.solve_triangular(lower, between.T, upper=False)  # [D, G]
    return rank_of(singular_values(half).square())


def _centre(x: Tensor) -> Tensor:
    """x minus its mean row, in fp64; exactly zero where what remains is fp32 rounding, so that noise has no rank."""
    x = x.double()
    if x.shape[0] == 0:
        return x
    centered = x - x.mean(dim=0)
    return torch.zeros_like(x) if centered.square().sum() <= NEGLIGIBLE * x.square().sum() else centered


def _subsample(latents: HealthSample) -> HealthSample:
    """At most MOST_ROWS embeddings and as many predictions, on the CPU; row-aligned fields stay aligned."""
    by_embedding = ("embedding", "teacher")
    by_prediction = ("predicted", "target", "rows", "positions", "copied")
    chosen = {f.name: x.cpu() for f in fields(latents) if (x := getattr(latents, f.name)) is not None}
    for names, count in ((by_embedding, len(latents.embedding)), (by_prediction, len(latents.predicted))):
        if count > MOST_ROWS:
            index = torch.randperm(count, generator=generator_for(0, "health", count))[:MOST_ROWS].sort().values
            chosen |= {name: chosen[name][index] for name in names if name in chosen}
    return replace(latents, **chosen)
