"""Evaluation tasks, independent of any model. Data sources make them, `evals` scores models on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from openjepa.core.method import Method


@dataclass(frozen=True)
class Classification:
    """Classification of inputs. Probes are fitted on `train` and scored on `test`."""

    name: str
    train: Sequence[Any]
    train_labels: Sequence[int]
    test: Sequence[Any]
    test_labels: Sequence[int]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Triplets:
    """Whether an anchor is nearer to a paraphrase than to a distractor. Chance is 0.5 for unrelated surfaces."""

    name: str
    anchors: Sequence[Any]
    positives: Sequence[Any]
    negatives: Sequence[Any]


@dataclass(frozen=True)
class Similarity:
    """Pairs whose cosines should rank as people's scores do. Scored by Spearman correlation."""

    name: str
    first: Sequence[Any]
    second: Sequence[Any]
    scores: Sequence[float]


class Answers(NamedTuple):
    """The score of each test item, higher is better, and the mean score by chance."""

    items: np.ndarray  # [N] e.g. 1.0 right and 0.0 wrong, or a reciprocal rank
    chance: float
    control: bool = False  # a reference for other measures (a wrong caption, say): neither a gain nor a loss
    groups: np.ndarray | None = None  # [N] items of one document, say, are alike: intervals resample them together


@dataclass(frozen=True)
class Prediction:
    """Scores of the method's own predictions, for what embeddings of whole inputs cannot measure.

    `ask` is called in eval mode without gradients, once each for the run, its initialisation and a random one, and
    must give the same measures with the same test items each time. `baselines` need no network, by column.
    """

    name: str
    ask: Callable[[Method], Mapping[str, Answers]]
    baselines: Mapping[str, Callable[[], Mapping[str, Answers]]] = field(default_factory=dict)


class Vectors(NamedTuple):
    """Predictions of a method (or a baseline), and the candidates. Dense, or sparse for word counts."""

    predicted: Any  # [N, D]
    candidates: Any  # [C, D]


@dataclass(frozen=True)
class Retrieval:
    """Retrieval of each prediction's target from a pool of candidates, by cosine, so norms do not count.

    The pools are part of the task: every column ranks the same candidates. Candidates of one pool must differ in
    content (a copy of the target would tie with it, and a tie counts as wrong). Measures:

        <name>_top1     share of items whose target is nearer than every other candidate of its pool
        <name>_mrr      mean reciprocal rank of the target
        <name>_aligned  cosine with the target minus the mean cosine with the others of the pool; chance 0
    """

    name: str
    pools: np.ndarray  # [N, K] int64 numbers of candidates, the item's target first; -1 pads smaller pools
    vectors: Callable[[Method], Vectors]  # called as `Prediction.ask` is
    texts: tuple[Sequence[str], Sequence[str]] | None = None  # (N contexts, C candidates), for TF-IDF
    baselines: Mapping[str, Callable[[], Vectors]] = field(default_factory=dict)  # without a network, by column
    beside: Mapping[str, Callable[[Method], Vectors]] = field(
        default_factory=dict
    )  # controls computed from the same network
    measures: tuple[str, ...] = ("top1", "mrr", "aligned")  # which of them are reported
    groups: np.ndarray | None = None  # [N] items of one document, say, are alike: intervals resample them together


@dataclass(frozen=True)
class Search:
    """Retrieval of the relevant documents of a query: both are embedded, and candidates ranked by cosine.

    Ties count against the ranking: the better of two documents comes last. Measures are means over queries of
    (`evals.search`)

        <name>_ndcg10     normalised discounted cumulative gain of the first 10
        <name>_recall10   share of the relevant documents that are among the first 10
        <name>_top1       whether the first one is relevant
        <name>_mrr        reciprocal rank of the first relevant document
    """

    name: str
    queries: Sequence[str]  # Q
    documents: Sequence[str]  # C
    gains: Sequence[Mapping[int, float]]  # Q: numbers of the relevant documents, with their gain (> 0)
    pools: np.ndarray | None = None  # [Q, K] int64 numbers of candidates, padded with -1; None = all documents
    left_out: Mapping[int, int] = field(default_factory=dict)  # query -> a document left out of its candidates: itself
    measures: tuple[str, ...] = ("ndcg10", "recall10")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark run by code outside this project: it returns no test items, so no interval can be given.

    `ask` gets a function from texts to their vectors [N, D]. Measures: <name>_<key of its result>.
    """

    name: str
    ask: Callable[[Callable[[Sequence[str]], np.ndarray]], Mapping[str, float]]


Task = Classification | Triplets | Similarity | Prediction | Retrieval | Search | Benchmark


def classification(
    name: str, train: Sequence[tuple[Any, str]], test: Sequence[tuple[Any, str]], most_tested: int | None = None
) -> Classification:
    """Make a probe task of inputs with labels. Its classes are the labels of `train`, sorted.

    It is tested on the first `most_tested` (None: all) of `test` whose label is among them, which may be none.
    """
    numbers = {label: number for number, label in enumerate(sorted({label for _, label in train}))}
    known = [(item, label) for item, label in test if label in numbers][:most_tested]
    return Classification(
        name=name,
        train=[item for item, _ in train],
        train_labels=[numbers[label] for _, label in train],
        test=[item for item, _ in known],
        test_labels=[numbers[label] for _, label in known],
        classes=tuple(numbers),
    )


def pool_table(pools: Sequence[np.ndarray]) -> np.ndarray:
    """Pools of different sizes, numbers of candidates each -> [N, K] int64, padded with -1."""
    table = np.full((len(pools), max(map(len, pools))), -1, dtype=np.int64)
    for line, pool in zip(table, pools, strict=True):
        line[: len(pool)] = pool
    return table
