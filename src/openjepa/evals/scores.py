"""Scores with the contribution of each test item, so that two models can be compared in pairs.

Items that are hard for one model are hard for the other; a bootstrap that draws the same items for both (Efron &
Tibshirani 1993) removes that shared part and finds differences that two separate intervals would hide. The interval is
about the choice of test items only, not about other training seeds. Items of one document are correlated; if taken as
independent they would make an interval too narrow, so documents are drawn instead (a cluster bootstrap).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from openjepa.core.grouping import group_sums

FEWEST_GROUPS = 10  # below it a bootstrap of groups is too narrow to trust: no interval
DRAWS_AT_ONCE = 1_000_000  # items drawn in one go: bounds the memory of the bootstrap to tens of MB


@dataclass(frozen=True)
class Score:
    """One model's result on one measure, with the value of `chance`; higher is better."""

    items: np.ndarray  # [N] per test item: 1.0 right, 0.0 wrong; or its cosine where `gold` is given
    chance: float | None  # None where it is not known: a score of code outside this project
    gold: np.ndarray | None = None  # [N] human scores; the value is then a rank correlation
    asked: str | None = None  # digest of the test items; only equal ones are paired item by item. None: not known
    groups: np.ndarray | None = None  # [N] of test items that are not independent (of one document): drawn together
    control: bool = False  # a reference for other measures: no gain or loss is claimed of it

    @property
    def value(self) -> float:
        """Accuracy in [0, 1], or Spearman's correlation in [-1, 1] where `gold` is given."""
        return float(self.resampled(np.arange(len(self.items))[None])[0])

    @property
    def can_be_redrawn(self) -> bool:
        """Whether an interval is meaningful: several test items, and if these come in groups, FEWEST_GROUPS groups."""
        return len(self.items) > 1 if self.groups is None else len(np.unique(self.groups)) >= FEWEST_GROUPS

    @property
    def contributions(self) -> np.ndarray:
        """[N] contributions whose mean is the value: the items, or products of standardised ranks with `gold`."""
        if self.gold is None:
            return self.items
        from scipy.stats import rankdata

        first = rankdata(self.items)
        second = rankdata(self.gold)
        spread = first.std() * second.std()
        return (first - first.mean()) * (second - second.mean()) / (spread or 1.0)

    def resampled(self, draws: np.ndarray) -> np.ndarray:
        """[R, N] item numbers -> [R] the value on each resample."""
        if self.gold is None:
            return self.items[draws].mean(axis=1)
        return spearman_rows(self.items[draws], self.gold[draws])


def spearman_rows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[R, N], [R, N] -> [R] Spearman's rank correlation of each pair of rows; 0 where a row is constant."""
    from scipy.stats import rankdata

    # [R, N], ties share their mean rank
    a = rankdata(first, axis=1)
    b = rankdata(second, axis=1)
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))  # [R]
    return np.divide((a * b).sum(axis=1), spread, out=np.zeros(len(a)), where=spread > 0)


def difference_interval(
    first: Score, second: Score, generator: torch.Generator, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of `first.value - second.value` over paired resamples of the test items."""
    return percentile_interval(difference_draws([first], [second], resamples, generator)[:, 0], level)


def difference_draws(
    first: Sequence[Score], second: Sequence[Score], resamples: int, generator: torch.Generator
) -> np.ndarray:
    """[resamples, S] bootstrap values of S differences; each resample draws the same test items for all."""
    count = len(first[0].items)
    assert all(len(score.items) == count for score in (*first, *second)), "a paired bootstrap needs the same items"
    pairs = list(zip(first, second, strict=True))
    groups = shared_groups((*first, *second))
    if any(score.gold is not None for score in (*first, *second)):
        assert groups is None, "rank correlations of groups are not redrawn"
        draws = _draws(count, resamples, generator)
        return np.concatenate([np.stack([a.resampled(d) - b.resampled(d) for a, b in pairs], axis=1) for d in draws])
    sums, sizes = totals(np.stack([a.items - b.items for a, b in pairs], axis=1), groups)  # [G, S], [G]
    means = []
    for draws in _draws(len(sums), resamples, generator):
        rows, drawn = draws.shape
        times = np.bincount((draws + drawn * np.arange(rows)[:, None]).ravel(), minlength=rows * drawn)  # [R * G]
        times = times.reshape(rows, drawn)  # how often each group was drawn: means in one product
        means.append(times @ sums / (times @ sizes)[:, None])
    return np.concatenate(means)


def shared_groups(scores: Sequence[Score]) -> np.ndarray | None:
    """The groups of the test items that these scores share; scores of older runs have none."""
    known = [score.groups for score in scores if score.groups is not None]
    assert all(np.array_equal(known[0], others) for others in known), "scores of the same items have the same groups"
    return known[0] if known else None


def totals(values: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """values [N, ...] -> sums within each group [G, ...], and group sizes [G]; None = each value is a group."""
    if groups is None:
        return values, np.ones(len(values))
    return group_sums(values, np.unique(groups, return_inverse=True)[1])


def _draws(count: int, resamples: int, generator: torch.Generator) -> Iterator[np.ndarray]:
    """`count` item numbers with replacement, `resamples` times, in parts [R, count] that fit into memory."""
    rows = max(1, DRAWS_AT_ONCE // count)
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), count)
        yield torch.randint(count, shape, generator=generator).numpy()


def percentile_interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """The central interval with a part `level`, in (0, 1), of the values [R]."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
