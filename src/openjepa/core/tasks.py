"""What an evaluation asks, independent of any model. Data sources make tasks, `evals` answers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Classification:
    """Which class does an input belong to? Probes learn on `train` and are scored on `test`."""

    name: str
    train: Sequence[Any]
    train_labels: Sequence[int]
    test: Sequence[Any]
    test_labels: Sequence[int]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Triplets:
    """Is the anchor nearer to a paraphrase than to a distractor? Chance is 0.5 for unrelated surfaces."""

    name: str
    anchors: Sequence[Any]
    positives: Sequence[Any]
    negatives: Sequence[Any]


@dataclass(frozen=True)
class Similarity:
    """Do cosines rank pairs as people do? Scored by Spearman correlation."""

    name: str
    first: Sequence[Any]
    second: Sequence[Any]
    scores: Sequence[float]


Task = Classification | Triplets | Similarity
