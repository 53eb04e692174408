"""What an evaluation asks, independent of any model. Data sources make tasks, `evals` answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from openjepa.core.method import Method


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


class Answers(NamedTuple):
    """How well each test item was answered, higher is better, and what knowing nothing gets on average."""

    items: np.ndarray  # [N] e.g. 1.0 right and 0.0 wrong, or a reciprocal rank
    chance: float
    control: bool = False  # what a measure is read against (a wrong caption, say): neither a gain nor a loss


@dataclass(frozen=True)
class Prediction:
    """What does the method itself predict? For questions that vectors of whole inputs cannot answer.

    `ask` is called in eval mode without gradients, once each for the run, its initialisation and a random one, and
    must give the same measures with the same test items each time. `baselines` answer without a network, by column.
    """

    name: str
    ask: Callable[[Method], Mapping[str, Answers]]
    baselines: Mapping[str, Callable[[], Mapping[str, Answers]]] = field(default_factory=dict)


class Vectors(NamedTuple):
    """What a method (or a baseline) predicts, and the vectors it chooses among. Dense, or sparse for word counts."""

    predicted: Any  # [N, D]
    candidates: Any  # [C, D]


@dataclass(frozen=True)
class Retrieval:
    """Does a predicted latent point at its own target, and at no other? By cosine, so norms do not count.

    The pools are part of the question: every column chooses among the same candidates. Candidates of one pool must
    differ in content (a second copy of the right one would tie with it, and a tie is no answer). Measures:

        <name>_top1     share of items whose own target is nearer than every other of its pool
        <name>_mrr      mean reciprocal rank of the own target
        <name>_aligned  cosine with the own target minus the mean cosine with the others of the pool; chance 0
    """

    name: str
    pools: np.ndarray  # [N, K] int64 numbers of candidates, the item's own target first; -1 fills up smaller pools
    vectors: Callable[[Method], Vectors]  # called as `Prediction.ask` is
    texts: tuple[Sequence[str], Sequence[str]] | None = None  # (N contexts, C candidates): TF-IDF answers too
    baselines: Mapping[str, Callable[[], Vectors]] = field(default_factory=dict)  # without a network, by column
    beside: Mapping[str, Callable[[Method], Vectors]] = field(default_factory=dict)  # more from the run's network
    measures: tuple[str, ...] = ("top1", "mrr", "aligned")  # which of them are asked for
    groups: np.ndarray | None = None  # [N] items of one document, say, are alike: intervals draw them together


@dataclass(frozen=True)
class Search:
    """Which documents answer a query? Both are embedded, and a query's candidates ranked by their cosine with it.

    Ties count against the ranking: the better of two documents comes last. A mean over queries of (`evals.search`)

        <name>_ndcg10     normalised discounted cumulative gain of the first 10
        <name>_recall10   share of the answers that are among the first 10
        <name>_top1       whether the first one is an answer
        <name>_mrr        reciprocal rank of the first answer
    """

    name: str
    queries: Sequence[str]  # Q
    documents: Sequence[str]  # C
    gains: Sequence[Mapping[int, float]]  # Q: numbers of the documents that answer, with how well (> 0)
    pools: np.ndarray | None = None  # [Q, K] int64 numbers of candidates, -1 fills up; None = all documents
    left_out: Mapping[int, int] = field(default_factory=dict)  # query -> a document that is no candidate of it: itself
    measures: tuple[str, ...] = ("ndcg10", "recall10")


@dataclass(frozen=True)
class Benchmark:
    """What code outside this project asks and scores: no test items come back, so no interval can be given.

    `ask` gets a function from texts to their vectors [N, D]. Measures: <name>_<what it says>.
    """

    name: str
    ask: Callable[[Callable[[Sequence[str]], np.ndarray]], Mapping[str, float]]


Task = Classification | Triplets | Similarity | Prediction | Retrieval | Search | Benchmark


def classification(
    name: str, learnt: Sequence[tuple[Any, str]], asked: Sequence[tuple[Any, str]], most_asked: int | None = None
) -> Classification:
    """Inputs with their labels as a probe. Its classes are the labels of `learnt`, sorted.

    It is tested on the first `most_asked` (None: all) of `asked` whose label is among them, which may be none.
    """
    numbers = {label: number for number, label in enumerate(sorted({label for _, label in learnt}))}
    known = [(item, label) for item, label in asked if label in numbers][:most_asked]
    return Classification(
        name=name,
        train=[item for item, _ in learnt],
        train_labels=[numbers[label] for _, label in learnt],
        test=[item for item, _ in known],
        test_labels=[numbers[label] for _, label in known],
        classes=tuple(numbers),
    )


def pool_table(pools: Sequence[np.ndarray]) -> np.ndarray:
    """Pools of different sizes, numbers of candidates each -> [N, K] int64, filled up with -1."""
    table = np.full((len(pools), max(map(len, pools))), -1, dtype=np.int64)
    for line, pool in zip(table, pools, strict=True):
        line[: len(pool)] = pool
    return table
