"""Skill: the quality of predictions relative to trivial predictors.

A JEPA's loss is a distance in a space that changes, so its value says little. Skill relates squared error to that of a
trivial predictor on the same targets: 1 = perfect, 0 = no better, negative = worse. Three trivial predictors: the best
constant, the best prediction from the position, and a copy of the nearest visible position.
All functions take [M, D] rows on any device in any precision, compute in fp64 and return a float; with nothing to
predict (fewer than two rows, constant targets, a trivial predictor without error) skill is 0.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

NEGLIGIBLE = 1e-12  # share of the energy below which a variance is fp32 rounding: (1e-6)^2


def skill(predicted: Tensor, target: Tensor) -> float:
    """1 - squared error / squared error of the best constant: R^2 over all dimensions. Range (-inf, 1], higher better.

    Equals scikit-learn's `r2_score(..., multioutput="variance_weighted")`. For a cosine objective pass unit vectors.
    """
    predicted = predicted.double()
    target = target.double()
    return _relative(_error(predicted, target), _error(_mean_row(target), target), target)


def skill_position(predicted: Tensor, target: Tensor, positions: Tensor) -> float:
    """Skill against the best prediction from `positions` [M] int64. Range (-inf, 1], higher better; at most `skill`.

    That of a row is the mean of the *other* targets at its position, shrunk to the mean of all other targets by
    the weight kappa = within-position / between-position variance (the best linear predictor of a random effect),
    since a position with one or two targets determines little.
    """
    predicted = predicted.double()
    target = target.double()
    count = target.shape[0]
    if count < 2:
        return 0.0
    unexplained = within_share(target, positions)
    kappa = unexplained / max(1 - unexplained, 1e-6)
    _, index = positions.unique(return_inverse=True)  # [M] -> 0..P-1
    others = index.bincount()[index].unsqueeze(1) - 1  # [M, 1] other rows at the same position
    at_position = target.new_zeros(int(index.max()) + 1, target.shape[1]).index_add_(0, index, target)[index] - target
    elsewhere = (target.sum(dim=0) - target) / (count - 1)  # [M, D]
    weight = others / (others + kappa).clamp(min=1e-12)
    guess = weight * at_position / others.clamp(min=1) + (1 - weight) * elsewhere  # [M, D]
    trivial = min(_error(guess, target), _error(_mean_row(target), target))
    return _relative(_error(predicted, target), trivial, target)


def skill_copy(predicted: Tensor, target: Tensor, copied: Tensor) -> float:
    """Skill against copying `copied` [M, D], latents of the nearest visible position. Range (-inf, 1], higher better.

    A model of smooth signals can have high skill and no skill over copying: it learned that neighbours are similar.
    """
    target = target.double()
    return _relative(_error(predicted.double(), target), _error(copied.double(), target), target)


def pair_cosine(predicted: Tensor, target: Tensor) -> float:
    """Mean cosine of each prediction with its target, in [-1, 1]. Means nothing without `random_pair_cosine`."""
    if predicted.shape[0] == 0:
        return 0.0
    return float((unit_rows(predicted) * unit_rows(target)).sum(dim=1).mean())


def random_pair_cosine(predicted: Tensor, target: Tensor) -> float:
    """Mean cosine of each prediction with every *other* row's target, over all M (M - 1) pairs, in [-1, 1].

    The reference for `pair_cosine`: 0.95 with its target is no alignment if it is 0.94 with other targets.
    """
    count = predicted.shape[0]
    if count < 2:
        return 0.0
    a = unit_rows(predicted)
    b = unit_rows(target)
    return float((a.sum(dim=0) @ b.sum(dim=0) - (a * b).sum()) / (count * (count - 1)))


def alignment(first: Tensor, second: Tensor) -> float:
    """E |f(x) - f(x+)|^2 of positive pairs on the unit sphere, in [0, 4], lower better; 2 = unrelated.

    Source: Wang & Isola 2020, eq. 3 with alpha = 2.
    """
    if first.shape[0] == 0:
        return 0.0
    return float((unit_rows(first) - unit_rows(second)).square().sum(dim=1).mean())


def within_share(x: Tensor, groups: Tensor) -> float:
    """Variance inside groups relative to all variance, for x [M, D] and group numbers [M] int64.

    0 = the group determines a row; 1 = groups do not differ (the expectation for random groups, by unbiased estimates;
    samples may exceed it). Groups of one are left out. No variance, or no group of two: 1.
    """
    _, index, counts = groups.unique(return_inverse=True, return_counts=True)
    several = (counts > 1)[index]
    x = x[several].double()
    if x.shape[0] == 0:
        return 1.0
    _, index, counts = groups[several].unique(return_inverse=True, return_counts=True)
    total = (x - x.mean(dim=0)).square().sum() / (x.shape[0] - 1)
    if total <= NEGLIGIBLE * x.square().sum() / x.shape[0]:
        return 1.0
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, index, x) / counts.unsqueeze(1)  # [G, D]
    within = (x - means[index]).square().sum() / (x.shape[0] - len(counts))
    return float(within / total)


def unit_rows(x: Tensor) -> Tensor:
    """Unit vectors in fp64; a zero vector stays zero and so has cosine 0 with everything."""
    return F.normalize(x.double(), dim=-1, eps=1e-30)


def _mean_row(x: Tensor) -> Tensor:
    return x.mean(dim=0, keepdim=True) if x.shape[0] else x


def _error(guess: Tensor, target: Tensor) -> float:
    return float((guess - target).square().sum())


def _relative(error: float, trivial: float, target: Tensor) -> float:
    if trivial <= NEGLIGIBLE * float(target.square().sum()):
        return 0.0
    return 1 - error / trivial
