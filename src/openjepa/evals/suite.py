"""Evaluates every task for every column by the same code, into one scorecard.

Tasks that share a list of inputs (the factors of one corpus) embed it once a column. The other cost is that of the
probes: ten factors of 4 to 96 classes on 2000 / 1000 texts take a network's column (128 dimensions) 1.5 s, and TF-IDF's
(2161 words) 8 s, on one core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from openjepa.core.compute import ON_CPU, Compute
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.method import Method
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Benchmark, Classification, Prediction, Retrieval, Search, Similarity, Task, Triplets
from openjepa.data.text.inputs import ReadingReport
from openjepa.evals.alignment import retrieved
from openjepa.evals.baselines import baselines_for
from openjepa.evals.features import Embedder, Vectors, embedder_of, input_key, query_vectors, require_finite
from openjepa.evals.networks import Methods
from openjepa.evals.probes import knn, logistic
from openjepa.evals.scorecard import LEVEL, NETWORKS, Measure, Scorecard
from openjepa.evals.scores import Score, difference_interval
from openjepa.evals.search import WORDS as BM25
from openjepa.evals.search import searched
from openjepa.evals.similarity import spearman, triplet_accuracy

Scores = dict[str, Score]
WORDS = "tfidf"  # the column that reads texts without a network


def evaluate(
    task: Task, embedder: Embedder, method: Method | None = None, column: str = "run", compute: Compute = ON_CPU
) -> Scores:
    """The measures of one task by name: `<task>_knn` and `<task>_logistic` for a classification, else `<task>`.

    A `Prediction` names its own measures, and evaluates `method`, or its baseline of this column (none: no measures); a
    `Retrieval` gives those it lists, for TF-IDF too if it has texts. A `Search` is evaluated for BM25 too, and a
    `Benchmark` only for networks. `compute` is where the method is.

    Every score has the digest of its test items. Raises UserError naming the task if it is malformed or cannot be
    evaluated.
    """
    try:
        scores = _scores(task, embedder, method, column, compute)
        digest = items_digest(task)
    except UserError as error:
        raise UserError(f"task {task.name!r}: {error}") from None
    return {name: replace(score, asked=digest) for name, score in scores.items()}


def items_digest(task: Task) -> str | None:
    """Digest of a task's test items, as far as they are texts, labels or numbers; None where they are not known."""
    match task:
        case Classification():
            items = [_texts(task.test), list(task.test_labels), task.classes]
        case Triplets():
            items = [_texts(part) for part in (task.anchors, task.positives, task.negatives)]
        case Similarity():
            items = [_texts(task.first), _texts(task.second), list(task.scores)]
        case Retrieval():
            items = [task.pools.tolist(), *map(_texts, task.texts or ())]
        case Search():
            pools = None if task.pools is None else task.pools.tolist()
            items = [_texts(task.queries), _texts(task.documents), [*map(dict, task.gains)], pools, dict(task.left_out)]
        case _:
            return None
    return hashlib.blake2b(repr(items).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _texts(inputs: Sequence[Any]) -> list[str] | int:
    """Texts themselves; of anything else (images) their number."""
    return list(inputs) if all(isinstance(item, str) for item in inputs) else len(inputs)


def _scores(task: Task, embedder: Embedder, method: Method | None, column: str, compute: Compute) -> Scores:
    match task:
        case Prediction():
            return _predicted(task, method, column, compute)
        case Retrieval():
            return _retrieved(task, embedder, method, column, compute)
        case Search():
            is_network = method is not None and column in NETWORKS
            return searched(task, embedder, column, partial(query_vectors, method) if is_network else None)
        case Benchmark():
            return _benchmarked(task, embedder) if column in NETWORKS else {}
        case _:
            _check(task)
            return _evaluate(task, embedder)


def own_columns(task: Task) -> list[str]:
    """Columns that a task adds to those of embedders."""
    match task:
        case Prediction():
            return [*task.baselines]
        case Retrieval():
            return [*task.baselines, *task.beside]
        case Search():
            return [BM25]
        case _:
            return []


def _benchmarked(task: Benchmark, embedder: Embedder) -> Scores:
    """One item each: neither test items nor chance are known."""
    values = task.ask(lambda texts: np.asarray(embedder(texts)))
    return {f"{task.name}_{name}": Score(np.array([value], dtype=np.float64), None) for name, value in values.items()}


def _predicted(task: Prediction, method: Method | None, column: str, compute: Compute) -> Scores:
    if method is not None and column in NETWORKS:
        with evaluating(method, compute):
            answers = task.ask(method)
    else:
        answers = task.baselines[column]() if column in task.baselines else {}
    return {
        name: Score(
            np.asarray(answer.items, dtype=np.float64), answer.chance, control=answer.control, groups=answer.groups
        )
        for name, answer in answers.items()
    }


def _retrieved(task: Retrieval, embedder: Embedder, method: Method | None, column: str, compute: Compute) -> Scores:
    vectors_of = task.vectors if column in NETWORKS else task.beside.get(column)
    if method is not None and vectors_of is not None:
        with evaluating(method, compute):
            predicted, candidates = vectors_of(method)
        for vectors, what in ((predicted, "predictions"), (candidates, "candidates")):
            require_finite(vectors, f"column {column!r}, {what}")
    elif column in task.baselines:
        predicted, candidates = task.baselines[column]()
    elif column == WORDS and task.texts is not None:
        contexts, texts = task.texts
        predicted = embedder(contexts)
        candidates = embedder(texts)
    else:
        return {}
    measures = retrieved(predicted, candidates, task.pools).measures().items()
    scores = {name: Score(answer.items, answer.chance, groups=task.groups) for name, answer in measures}
    return {f"{task.name}_{name}": scores[name] for name in task.measures}


def _evaluate(task: Classification | Triplets | Similarity, embedder: Embedder) -> Scores:
    match task:
        case Classification():
            train = embedder(task.train)
            test = embedder(task.test)
            return {
                f"{task.name}_knn": knn(train, task.train_labels, test, task.test_labels),
                f"{task.name}_logistic": logistic(train, task.train_labels, test, task.test_labels),
            }
        case Triplets():
            return {task.name: triplet_accuracy(embedder, task)}
        case Similarity():
            return {task.name: spearman(embedder, task)}


def scorecard_of(
    tasks: Sequence[Task], networks: Mapping[str, Experiment], report: ReadingReport | None = None
) -> Scorecard:
    """Evaluate all tasks for the networks `run`, `init` and `random`, and for the baselines; see `run_suite`.

    `report` counts the texts that the run reads, and decides for all three whether long ones are cut.
    """
    columns: dict[str, Embedder] = {name: _embedder_by_name(networks, name, report) for name in networks}
    columns |= baselines_for(networks["run"], tasks)
    run = networks["run"]
    reads_vectors = any(isinstance(task, Classification | Triplets | Similarity | Search) for task in tasks)
    scorecard = run_suite(tasks, columns, Methods(networks), compute=run.compute)
    return replace(scorecard, embedding=run.embedding.note if reads_vectors else "")


def _embedder_by_name(networks: Mapping[str, Experiment], name: str, report: ReadingReport | None) -> Embedder:
    """An embedder that looks its network up on each use and keeps no reference: see `Networks`.

    Only the run's reads are counted: those of the others are the same.
    """
    if report is not None and name != "run":
        report = ReadingReport(report.inputs, report.long)
    return lambda inputs: embedder_of(networks[name], report=report)(inputs)


def run_suite(
    tasks: Sequence[Task],
    columns: Mapping[str, Embedder],
    methods: Mapping[str, Method] | None = None,
    seed: int = 0,
    compute: Compute = ON_CPU,
) -> Scorecard:
    """Evaluate all tasks for all columns: `run`, `init` (its initialisation), `random` and at least one baseline.

    `methods` are the networks themselves by column, for tasks that are `Prediction`s or `Retrieval`s; these may add
    columns. `compute` is where the networks are.
    Raises UserError naming the task if it is malformed, and the column if its vectors are not finite.
    """
    extra = {name for task in tasks for name in own_columns(task)} - set(columns)
    assert set(NETWORKS) <= set(columns), "a scorecard needs the columns run, init and random"
    baselines = [*(name for name in columns if name not in NETWORKS), *sorted(extra)]
    only_benchmarks = all(isinstance(task, Benchmark) for task in tasks)
    assert baselines or only_benchmarks, "a scorecard needs a baseline that learns no representation"
    if not tasks:
        raise UserError("there is nothing to evaluate: the list of tasks is empty")
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError(f"two evaluation tasks share a name: {', '.join(sorted(task.name for task in tasks))}")
    scores: dict[str, Scores] = {}
    for column in (*NETWORKS, *baselines):
        network = "run" if column in extra else column
        answered = [task for task in tasks if column in columns or column in own_columns(task)]
        embedder = columns.get(column, no_vectors)
        method = (methods or {}).get
        scores[column] = score_column(answered, column, embedder, method(network), compute)  # keeps no reference to it
    return Scorecard({name: _measure(name, scores, seed) for name in scores["run"]})


def require_texts(experiment: Experiment, recipe: str) -> None:
    """Raises UserError if the experiment of `recipe` does not embed texts, as suites need."""
    if experiment.baselines:
        raise UserError(f"a suite evaluates texts, and {recipe} embeds images; leave --suite out")


def score_column(
    tasks: Sequence[Task], column: str, embedder: Embedder, method: Method | None = None, compute: Compute = ON_CPU
) -> Scores:
    """The measures of all tasks for one column; a list of inputs that tasks share is embedded once.

    `compute` is where the method is.
    """
    embed = _cached(column, embedder)
    return {name: score for task in tasks for name, score in evaluate(task, embed, method, column, compute).items()}


def _measure(name: str, scores: Mapping[str, Scores], seed: int) -> Measure:
    run = scores["run"][name]
    init = scores["init"][name]
    generator = generator_for(seed, "scorecard", name)
    interval = difference_interval(run, init, generator, level=LEVEL) if run.can_be_redrawn else None
    return Measure(
        values={column: found[name].value for column, found in scores.items() if name in found},
        chance=run.chance,
        interval=interval,
        control=run.control,
    )


def no_vectors(inputs: Sequence[Any]) -> Vectors:
    """The embedder of a column that tasks add."""
    raise AssertionError("this column embeds nothing")


def _cached(column: str, embedder: Embedder) -> Embedder:
    """The same embedder, checked, embedding each list of inputs once (texts by content, others by identity)."""
    cache: dict[Any, Vectors] = {}

    def embed(inputs: Sequence[Any]) -> Vectors:
        key = input_key(inputs)
        if key not in cache:
            vectors = embedder(inputs)  # [N, D]
            if vectors.shape[0] != len(inputs):
                raise UserError(f"column {column!r}: {len(inputs)} inputs gave {vectors.shape[0]} vectors")
            require_finite(vectors, f"column {column!r}")
            cache[key] = vectors
        return cache[key]

    return embed


def _check(task: Classification | Triplets | Similarity) -> None:
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
