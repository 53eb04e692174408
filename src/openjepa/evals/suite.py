"""Asks every task of every column with the same code and writes the answers into one scorecard.

Tasks that share a list of inputs (the factors of one corpus) embed it once a column. Embedding aside, the cost is that
of the probes: ten factors of 4 to 96 classes on 2000 / 1000 texts take a network's column (128 dimensions) 1.5 s, and
TF-IDF's (2161 words) 8 s, on one core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from openjepa.evals.features import Embedder, Vectors, embedder_of, input_key, require_finite
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

    A `Prediction` names its own measures, and asks `method`, or its baseline of this column (none: no measures); a
    `Retrieval` gives those it lists, and TF-IDF answers it as well if it has texts. BM25 answers a `Search` as well,
    and networks alone a `Benchmark`. `compute` is where the method is.
    Every score carries the digest of what was asked. Raises UserError naming the task if it is malformed or cannot be
    answered.
    """
    try:
        found, asked = _answered(task, embedder, method, column, compute), asked_of(task)
    except UserError as error:
        raise UserError(f"task {task.name!r}: {error}") from None
    return {name: replace(score, asked=asked) for name, score in found.items()}


def asked_of(task: Task) -> str | None:
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


def _answered(task: Task, embedder: Embedder, method: Method | None, column: str, compute: Compute) -> Scores:
    match task:
        case Prediction():
            return _predicted(task, method, column, compute)
        case Retrieval():
            return _retrieved(task, embedder, method, column, compute)
        case Search():
            return searched(task, embedder, column)
        case Benchmark():
            return _benchmarked(task, embedder) if column in NETWORKS else {}
        case _:
            _check(task)
            return _evaluate(task, embedder)


def own_columns(task: Task) -> list[str]:
    """Columns that a task brings along, besides those that embed."""
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
    """One item each: nothing is known of test items, nor of what chance would get."""
    found = task.ask(lambda texts: np.asarray(embedder(texts)))
    return {f"{task.name}_{name}": Score(np.array([value], dtype=np.float64), None) for name, value in found.items()}


def _predicted(task: Prediction, method: Method | None, column: str, compute: Compute) -> Scores:
    if method is not None and column in NETWORKS:
        with evaluating(method, compute):
            answers = task.ask(method)
    else:
        answers = task.baselines[column]() if column in task.baselines else {}
    return {
        name: Score(np.asarray(given.items, dtype=np.float64), given.chance, control=given.control)
        for name, given in answers.items()
    }


def _retrieved(task: Retrieval, embedder: Embedder, method: Method | None, column: str, compute: Compute) -> Scores:
    ask = task.vectors if column in NETWORKS else task.beside.get(column)
    if method is not None and ask is not None:
        with evaluating(method, compute):
            predicted, candidates = ask(method)
        for vectors, what in ((predicted, "predictions"), (candidates, "candidates")):
            require_finite(vectors, f"column {column!r}, {what}")
    elif column in task.baselines:
        predicted, candidates = task.baselines[column]()
    elif column == WORDS and task.texts is not None:
        contexts, texts = task.texts
        predicted, candidates = embedder(contexts), embedder(texts)
    else:
        return {}
    found = retrieved(predicted, candidates, task.pools)
    measures = found.measures().items()
    scores = {name: Score(given.items, given.chance, groups=task.groups) for name, given in measures}
    return {f"{task.name}_{name}": scores[name] for name in task.measures}


def _evaluate(task: Classification | Triplets | Similarity, embedder: Embedder) -> Scores:
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


def scorecard_of(
    tasks: Sequence[Task], networks: Mapping[str, Experiment], report: ReadingReport | None = None
) -> Scorecard:
    """All tasks for the networks `run`, `init` and `random`, and for what needs no learning; see `run_suite`.

    `report` counts what the run reads of texts, and says for all three whether long ones are cut.
    """
    columns: dict[str, Embedder] = {name: _embedder_by_name(networks, name, report) for name in networks}
    columns |= baselines_for(networks["run"], tasks)
    run = networks["run"]
    reads_vectors = any(isinstance(task, Classification | Triplets | Similarity | Search) for task in tasks)
    scorecard = run_suite(tasks, columns, Methods(networks), compute=run.compute)
    return replace(scorecard, embedding=run.embedding.note if reads_vectors else "")


def _embedder_by_name(networks: Mapping[str, Experiment], name: str, report: ReadingReport | None) -> Embedder:
    """Looks the network up when it is used and holds none: see `Networks`.

    What another network than the run reads is not counted: it is the same.
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
    """All tasks for all columns: `run`, `init` (the run's own start), `random` and at least one baseline (`tfidf`).

    `methods` are the networks themselves by column, for tasks that are `Prediction`s or `Retrieval`s; these may add
    columns. `compute` is where the networks are.
    Raises UserError naming the task if it is malformed, and the column if its vectors are not finite.
    """
    extra = {name for task in tasks for name in own_columns(task)} - set(columns)
    assert set(NETWORKS) <= set(columns), "a scorecard needs the columns run, init and random"
    baselines = [*(name for name in columns if name not in NETWORKS), *sorted(extra)]
    asked_elsewhere = all(isinstance(task, Benchmark) for task in tasks)
    assert baselines or asked_elsewhere, "a scorecard needs a baseline that learns no representation"
    if not tasks:
        raise UserError("there is nothing to evaluate: the list of tasks is empty")
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError(f"two evaluation tasks share a name: {', '.join(sorted(task.name for task in tasks))}")
    scores: dict[str, Scores] = {}
    for column in (*NETWORKS, *baselines):
        network = "run" if column in extra else column
        asked = [task for task in tasks if column in columns or column in own_columns(task)]
        embedder = columns.get(column, no_vectors)
        method = (methods or {}).get
        scores[column] = score_column(asked, column, embedder, method(network), compute)  # no name keeps it alive
    return Scorecard({name: _measure(name, scores, seed) for name in scores["run"]})


def require_texts(experiment: Experiment, recipe: str) -> None:
    """Raises UserError if the experiment of `recipe` embeds something else than texts: what suites ask about."""
    if experiment.baselines:
        raise UserError(f"a suite asks about texts, and {recipe} embeds images; leave --suite out")


def score_column(
    tasks: Sequence[Task], column: str, embedder: Embedder, method: Method | None = None, compute: Compute = ON_CPU
) -> Scores:
    """The measures of all tasks for one column; a list of inputs that tasks share is embedded once.

    `compute` is where the method is.
    """
    embed = _remembering(column, embedder)
    return {name: score for task in tasks for name, score in evaluate(task, embed, method, column, compute).items()}


def _measure(name: str, scores: Mapping[str, Scores], seed: int) -> Measure:
    run, init = scores["run"][name], scores["init"][name]
    generator = generator_for(seed, "scorecard", name)
    interval = difference_interval(run, init, generator, level=LEVEL) if run.can_be_redrawn else None
    return Measure(
        values={column: found[name].value for column, found in scores.items() if name in found},
        chance=run.chance,
        interval=interval,
        control=run.control,
    )


def no_vectors(inputs: Sequence[Any]) -> Vectors:
    """The embedder of a column that tasks bring along."""
    raise AssertionError("this column embeds nothing")


def _remembering(column: str, embedder: Embedder) -> Embedder:
    """The same embedder, checked, embedding each list of inputs once (texts by content, others by identity)."""
    known: dict[Any, Vectors] = {}

    def embed(inputs: Sequence[Any]) -> Vectors:
        key = input_key(inputs)
        if key not in known:
            vectors = embedder(inputs)  # [N, D]
            if vectors.shape[0] != len(inputs):
                raise UserError(f"column {column!r}: {len(inputs)} inputs gave {vectors.shape[0]} vectors")
            require_finite(vectors, f"column {column!r}")
            known[key] = vectors
        return known[key]

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
