"""Alignment of predicted latents with their targets: cosines and ranks, relative to the targets of other inputs.

A cosine of 0.95 with the true target is no alignment if it is 0.95 with a shuffled one, as in any narrow cone of
latents. So every figure here is a difference or a rank: own minus others within the same pool, and the rank of the true
target among the others. Ties count against the prediction, so a collapsed encoder (ties only) ranks last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Answers, Retrieval
from openjepa.evals.features import Vectors, cosine_rows, inner_products, unit_rows
from openjepa.evals.similarity import RESOLUTION

COSINES_AT_ONCE = 4_000_000  # bounds memory to some tens of MB


@dataclass(frozen=True)
class Retrieved:
    """Cosines and rank of each of N predictions in its pool."""

    own: np.ndarray  # [N] cosine with the true target, in [-1, 1]
    others: np.ndarray  # [N] mean cosine with the other candidates of its pool, in [-1, 1]
    ranks: np.ndarray  # [N] int64, 1 = the true target is nearest; candidates that tie with it are counted as nearer
    sizes: np.ndarray  # [N] int64, candidates in the pool, the true target included

    def measures(self) -> dict[str, Answers]:
        """`top1`, `mrr` and `aligned` by item, each with its chance level in pools of these sizes.

        Chance: 1 / K for top1, H_K / K for the reciprocal rank (H_K = 1 + 1/2 + ... + 1/K), 0 for own minus others.
        """
        harmonic = np.cumsum(1 / np.arange(1, self.sizes.max() + 1))  # [largest K]
        return {
            "top1": Answers((self.ranks == 1).astype(np.float64), float((1 / self.sizes).mean())),
            "mrr": Answers(1 / self.ranks, float((harmonic[self.sizes - 1] / self.sizes).mean())),
            "aligned": Answers(self.own - self.others, 0.0),
        }


def retrieved(predicted: Vectors, candidates: Vectors, pools: np.ndarray) -> Retrieved:
    """Rank the target of each prediction [N, D] in its pool [N, K] of candidates [C, D] (target first, -1 = no more).

    Raises UserError if shapes do not belong together, a number is no candidate, or a pool has fewer than two.
    """
    _check(predicted, candidates, pools)
    targets = unit_rows(candidates)  # [C, D]
    rows = max(1, COSINES_AT_ONCE // targets.shape[0])
    parts = []
    for start in range(0, len(pools), rows):
        pool = pools[start : start + rows]  # [n, K]
        cosines = inner_products(unit_rows(predicted[start : start + rows]), targets)  # [n, C]
        parts.append(_within(np.take_along_axis(cosines, pool.clip(min=0), axis=1), pool >= 0))
    return Retrieved(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _within(cosines: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cosines [n, K] of each item with its pool, target first, and which are real -> the fields of Retrieved."""
    own = cosines[:, 0]
    rest = cosines[:, 1:]
    counted = real[:, 1:]
    others = (rest * counted).sum(axis=1) / counted.sum(axis=1)
    ranks = 1 + ((rest > own[:, None] - RESOLUTION) & counted).sum(axis=1)
    return own, others, ranks, real.sum(axis=1)


def curve_point(task: Retrieval, method: Any) -> dict[str, float]:
    """A method's figures on a retrieval: mean cosines with the true target, others and random directions, and ranks.

    The keys: {"own_cosine", "shuffled_cosine", "random_cosine", "mrr", "top1", "mrr_chance", "top1_chance"}. The method
    stays in its mode.
    """
    predicted, candidates = task.vectors(method)
    ranked = retrieved(predicted, candidates, task.pools)
    measures = ranked.measures()
    return {
        "own_cosine": float(ranked.own.mean()),
        "shuffled_cosine": float(ranked.others.mean()),
        "random_cosine": float(random_cosines(predicted).mean()),
        **{name: float(measures[name].items.mean()) for name in ("mrr", "top1")},
        **{f"{name}_chance": measures[name].chance for name in ("mrr", "top1")},
    }


def random_cosines(predicted: Vectors, generator: torch.Generator | None = None) -> np.ndarray:
    """[N] cosines of each prediction [N, D] with a direction drawn at random: mean 0, standard deviation 1/sqrt(D)."""
    generator = generator_for(0, "alignment", "random") if generator is None else generator
    directions = torch.randn(*predicted.shape, generator=generator).numpy()  # [N, D]
    return cosine_rows(predicted, directions)


def _check(predicted: Vectors, candidates: Vectors, pools: np.ndarray) -> None:
    if pools.ndim != 2 or len(pools) != predicted.shape[0] or predicted.shape[1] != candidates.shape[1]:
        raise UserError(
            f"{predicted.shape} predictions, {candidates.shape} candidates and {pools.shape} pools do not belong "
            "together: [N, D], [C, D] and [N, K] are needed"
        )
    if pools.max(initial=-1) >= candidates.shape[0]:
        raise UserError(f"a pool names candidate {pools.max()}, and there are {candidates.shape[0]}")
    if not len(pools) or bool((pools[:, 0] < 0).any()) or int((pools >= 0).sum(axis=1).min()) < 2:
        raise UserError("every pool needs its target in the first place and another candidate")
