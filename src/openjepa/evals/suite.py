"""Asks every task of every column with the same code and writes the answers into one ledger.

Tasks that share a list of inputs (the factors of one corpus) embed it once a column. Embedding aside, the cost is that
of the probes: ten factors of 4 to 96 classes on 2000 / 1000 texts take a network's column (128 dimensions) 1.5 s, and
TF-IDF's (2161 words) 8 s, on one core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Classification, Similarity, Task, Triplets
from openjepa.evals.features import Embedder, Vectors, require_finite
from openjepa.evals.ledger import LEVEL, NETWORKS, Ledger, Measure
from openjepa.evals.probes import knn, logistic
from openjepa.evals.scores import Score, difference_interval
from openjepa.evals.similarity import spearman, triplet_accuracy

Scores = dict[str, Score]


def evaluate(task: Task, embedder: Embedder) -> Scores:
    """The measures of one task by name: `<task>_knn` and `<task>_logistic` for a classification, else `<task>`.

    Raises UserError naming the task if it is malformed or cannot be answered.
    """
    try:
        _check(task)
        return _evaluate(task, embedder)
    except UserError as error:
        raise UserError(f"task {task.name!r}: {error}") from None


def _evaluate(task: Task, embedder: Embedder) -> Scores:
    match task:
        case Classification():
            train, test = embedder(task.train), embedder(task.test)
            return {
                f"{task.name}_knn": knn(train, task.train_labels, test, task.test_labels),
                f"{task.name}_logistic": logistic(train, task.train_labels, test, task.test_labels),
            }
        case Triplets():
            return {task.name: triplet_accuracy(embedder, task)}
        case Similarity():
            return {task.name: spearman(embedder, task)}


def run_suite(tasks: Sequence[Task], columns: Mapping[str, Embedder], seed: int = 0) -> Ledger:
    """All tasks for all columns: `run`, `init` (the run's own start), `random` and at least one baseline (`tfidf`).

    Raises UserError naming the task if it is malformed, and the column if its vectors are not finite.
    """
    baselines = [name for name in columns if name not in NETWORKS]
    assert set(NETWORKS) <= set(columns), "a ledger needs the columns run, init and random"
    assert baselines, "a ledger needs a baseline that learns no representation"
    if not tasks:
        raise UserError("there is nothing to evaluate: the list of tasks is empty")
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError(f"two evaluation tasks share a name: {', '.join(sorted(task.name for task in tasks))}")
    ordered = (*NETWORKS, *baselines)
    scores = {column: _all_scores(tasks, _remembering(column, columns[column])) for column in ordered}
    return Ledger(
        {
            name: Measure(
                values={column: scores[column][name].value for column in ordered},
                chance=run.chance,
                interval=difference_interval(
                    run, scores["init"][name], generator_for(seed, "ledger", name), level=LEVEL
                ),
            )
            for name, run in scores["run"].items()
        }
    )


def _all_scores(tasks: Sequence[Task], embedder: Embedder) -> Scores:
    return {name: score for task in tasks for name, score in evaluate(task, embedder).items()}


def _remembering(column: str, embedder: Embedder) -> Embedder:
    """The same embedder, checked, embedding each list of inputs once (texts by content, others by identity)."""
    known: dict[Any, Vectors] = {}

    def embed(inputs: Sequence[Any]) -> Vectors:
        key = tuple(inputs) if all(isinstance(item, str) for item in inputs) else id(inputs)
        if key not in known:
            vectors = embedder(inputs)  # [N, D]
            if vectors.shape[0] != len(inputs):
                raise UserError(f"column {column!r}: {len(inputs)} inputs gave {vectors.shape[0]} vectors")
            require_finite(vectors, f"column {column!r}")
            known[key] = vectors
        return known[key]

    return embed


def _check(task: Task) -> None:
    """Raises UserError if parts of a task that belong together differ in length, or are empty."""
    match task:
        case Classification():
            groups = [(task.train, task.train_labels), (task.test, task.test_labels)]
        case Triplets():
            groups = [(task.anchors, task.positives, task.negatives)]
        case Similarity():
            groups = [(task.first, task.second, task.scores)]
    for group in groups:
        sizes = [len(part) for part in group]
        if len(set(sizes)) > 1 or not sizes[0]:
            raise UserError(f"its parts have {sizes} items, but they must be equal in number and not empty")
