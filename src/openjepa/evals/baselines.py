"""Baselines without a learned representation: word counts and the commonest class.

TF-IDF with a logistic probe is a strong baseline on topics and ignores word order; a text encoder below it is not worth
its cost. Single characters count as words too, for digits and one-letter names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.core.tasks import Benchmark, Classification, Prediction, Retrieval, Search, Similarity, Task, Triplets
from openjepa.evals.features import Embedder, Labels
from openjepa.tasks.tfidf import vectorizer


def tfidf(corpus: Sequence[str]) -> Embedder:
    """An embedder of sparse [N, V] unit rows: sublinear TF-IDF of words, vocabulary and document counts from `corpus`.

    Words that `corpus` lacks are ignored. Raises UserError if it holds no words or something other than texts.
    """
    other = next((item for item in corpus if not isinstance(item, str)), None)
    if other is not None:
        raise UserError(f"TF-IDF reads texts, and its corpus holds a {type(other).__name__}; use another baseline")
    words = vectorizer()
    try:
        words.fit(corpus)
    except ValueError:
        raise UserError(f"TF-IDF found no words in its corpus of {len(corpus)} texts") from None
    return lambda texts: sparse.csr_array(words.transform(texts))


def tfidf_for(tasks: Sequence[Task]) -> Embedder:
    """TF-IDF fitted on all texts that a model may use: training texts, and texts of tasks without training."""
    return tfidf(list(dict.fromkeys(text for task in tasks for text in _visible(task))))


def baselines_for(experiment: Experiment, tasks: Sequence[Task]) -> dict[str, Embedder]:
    """Baseline embedders by column: those of the experiment, else TF-IDF if the tasks have texts."""
    baselines: dict[str, Embedder] = dict(experiment.baselines)
    return baselines if baselines or not has_words(tasks) else {"tfidf": tfidf_for(tasks)}


def has_words(tasks: Sequence[Task]) -> bool:
    """Whether TF-IDF can answer any of the tasks: some use the method itself and have no texts."""
    return any(len(_visible(task)) for task in tasks)


def majority(train_labels: Labels, test_labels: Labels) -> float:
    """Accuracy on test, in [0, 1], of always predicting the commonest class of train: chance of a classification."""
    classes, counts = np.unique(train_labels, return_counts=True)
    return float(np.mean(np.asarray(test_labels) == classes[counts.argmax()]))


def _visible(task: Task) -> list[Any]:
    match task:
        case Classification():
            return list(task.train)
        case Triplets():
            return [*task.anchors, *task.positives, *task.negatives]
        case Similarity():
            return [*task.first, *task.second]
        case Retrieval():
            return [*task.texts[0], *task.texts[1]] if task.texts is not None else []
        case Search():
            return list(task.documents)
        case Prediction() | Benchmark():  # has its own baselines, or none
            return []
