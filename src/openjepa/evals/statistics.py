"""Intervals and p-values of differences between configurations, paired by seed and by test item.

Results vary with training seeds and with test items. Runs of two configurations are paired in both: seed by seed, and
item by item of the same test set. What the pairs share (a lucky seed, a hard item) cancels, so differences are found
that two separate averages would hide.

    paired_interval   an interval for both sources of variance: a bootstrap over items, Student's t over seeds
    sign_flip_p       a sign-flip permutation test: under "no difference" both signs of a pair are equally likely
    holm              p-values corrected for many comparisons, which bound the chance of any false positive

With few seeds the p-value over seeds cannot be small: flipping S signs gives 2^(1 - S) at best, 0.25 for three seeds,
0.03 for six. A p-value over items can, but it is about these trained networks only, not about other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from openjepa.evals.scorecard import LEVEL
from openjepa.evals.scores import DRAWS_AT_ONCE, Score, difference_draws, percentile_interval, shared_groups, totals

RESAMPLES = 2000  # of a bootstrap: the ends of a 95 % interval then move by some hundredths of its length
FLIPS = 10_000  # drawn where there are more combinations of signs than this; the smallest p-value is then 1e-4
TIE = 1e-9  # relative: sums of the same numbers in another order count as equal


@dataclass(frozen=True)
class Difference:
    """The difference of two configurations on one measure, over paired seeds."""

    value: float  # mean over seeds of first - second
    interval: tuple[float, float] | None  # 95 %, see `paired_interval`; None for one seed without items
    agreeing: int  # seeds whose difference has the sign of the mean; 0 if there is none
    seeds: int
    p_seeds: float  # two-sided, exact over seeds; at least 2^(1 - seeds)
    p_items: float | None  # two-sided, over test items or their groups, of these networks; None without an interval


def difference(first: Sequence[Score], second: Sequence[Score], generator: torch.Generator) -> Difference:
    """Compare the scores of two configurations on one measure, one score a seed, seeds in the same order.

    Test items are paired where all scores have equally many, and enough of them; else only the seeds are.
    """
    assert len(first) == len(second) > 0, "paired seeds are needed"
    by_seed = np.array([a.value - b.value for a, b in zip(first, second, strict=True)])  # [S]
    counts = {len(score.items) for score in (*first, *second)}
    if len(counts) > 1 or not all(score.can_be_redrawn for score in (*first, *second)):
        return seeds_difference(by_seed, generator)
    by_item = np.mean([a.contributions - b.contributions for a, b in zip(first, second, strict=True)], axis=0)  # [N]
    p_items = sign_flip_p(totals(by_item, shared_groups((*first, *second)))[0], generator)
    return Difference(
        value=float(by_seed.mean()),
        interval=paired_interval(first, second, generator),
        p_items=p_items,
        **_over_seeds(by_seed, generator),
    )


def seeds_difference(by_seed: np.ndarray, generator: torch.Generator) -> Difference:
    """The same for a figure without test items (skill, say): differences [S], one a seed; the interval is Student's."""
    from scipy import stats

    interval = None
    if len(by_seed) > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(by_seed) - 1)) * _standard_error(by_seed)
        interval = (float(by_seed.mean()) - half, float(by_seed.mean()) + half)
    return Difference(value=float(by_seed.mean()), interval=interval, p_items=None, **_over_seeds(by_seed, generator))


def _over_seeds(by_seed: np.ndarray, generator: torch.Generator) -> dict:
    mean = by_seed.mean()
    return {
        "agreeing": int((np.sign(by_seed) == np.sign(mean)).sum()) if mean else 0,
        "seeds": len(by_seed),
        "p_seeds": sign_flip_p(by_seed, generator),
    }


def paired_interval(
    first: Sequence[Score], second: Sequence[Score], generator: torch.Generator, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % interval of the mean over seeds of `first.value - second.value`; one Score a seed, paired in order.

    Each resample draws the test items anew (the same for all seeds and both sides) and adds the variance of S seeds:
    Student's t with S - 1 degrees of freedom, times the standard error over seeds. A bootstrap over seeds would be too
    narrow: for three, a third as wide as with t. One seed has no such variance, which leaves the bootstrap over items,
    `scores.difference_interval`.
    """
    values = difference_draws(first, second, resamples, generator).mean(axis=1)  # [resamples]
    if len(first) > 1:
        by_seed = np.array([a.value - b.value for a, b in zip(first, second, strict=True)])
        values = values + _standard_error(by_seed) * _student(len(first) - 1, resamples, generator)
    return percentile_interval(values, LEVEL)


def _standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of independent values [S], S > 1."""
    return float(values.std(ddof=1) / len(values) ** 0.5)


def _student(degrees: int, count: int, generator: torch.Generator) -> np.ndarray:
    """[count] draws from Student's t: a standard normal over the root of a mean of `degrees` squared others."""
    normal = torch.randn(count, degrees + 1, generator=generator, dtype=torch.float64).numpy()
    return normal[:, 0] / np.sqrt((normal[:, 1:] ** 2).mean(axis=1))


def sign_flip_p(differences: np.ndarray, generator: torch.Generator, flips: int = FLIPS) -> float:
    """Two-sided p-value, in (0, 1], of paired differences [N] with mean 0 under "either sign is as likely".

    Exact where there are at most `flips` combinations of signs, else by drawing that many, with the observed one
    counted (Phipson & Smyth 2010), so never 0. Pairs without a difference are left out. On differences of +1 and -1
    this is McNemar's exact test.
    """
    values = differences[differences != 0]
    if not len(values):
        return 1.0
    limit = abs(values.sum()) - TIE * np.abs(values).sum()
    if 2 ** len(values) <= flips:
        bits = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return float((np.abs((1 - 2 * bits) @ values) >= limit).mean())
    extreme = 1
    rows = max(1, DRAWS_AT_ONCE // len(values))
    for start in range(0, flips, rows):
        shape = (min(rows, flips - start), -(-len(values) // 8))
        drawn = torch.randint(256, shape, generator=generator, dtype=torch.uint8).numpy()  # eight signs a byte
        flipped = np.unpackbits(drawn, axis=1, count=len(values)).astype(np.float64) @ values  # [R]
        extreme += int((np.abs(values.sum() - 2 * flipped) >= limit).sum())
    return extreme / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979), each in [0, 1] and in the order given.

    The chance that any true "no difference" gets a value below alpha is at most alpha, under any dependence.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()
