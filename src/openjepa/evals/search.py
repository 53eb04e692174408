"""Measures of rankings, nDCG and recall as trec_eval defines them, query by query.

    nDCG@10 = DCG / ideal DCG,  DCG = sum over ranks r <= 10 of gain(r) / log2(r + 1)
    recall@10 = answers among the first 10 / all answers of the query

Gains are the judged scores themselves (linear, as in trec_eval, pytrec_eval and sklearn's `ndcg_score`; 2^gain - 1 is
another measure). The ideal ranks all answers of the query by gain. Only documents with a gain above 0 are answers. Ties
count against the ranking (trec_eval breaks them by name), so a collapsed encoder ranks every answer last.

The chance of every measure is its exact expectation under a random order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from openjepa.core.errors import UserError
from openjepa.core.tasks import Search
from openjepa.evals.bm25 import bm25
from openjepa.evals.features import Embedder, Vectors, inner_products, require_finite, unit_rows
from openjepa.evals.scores import Score

WORDS = "bm25"  # the column that ranks by words
CUT = 10  # ranks that nDCG and recall count
SCORES_AT_ONCE = 4_000_000  # bounds memory to some tens of MB
DECIMALS = 6  # scores that agree in so many are equal


@dataclass(frozen=True)
class Answers:
    """Ranks and gains of the R answers of one query in its ranking of N candidates."""

    ranks: np.ndarray  # [R] int64, rising; 1 = first
    gains: np.ndarray  # [R] of the answers at these ranks, above 0
    candidates: int

    @property
    def ideal(self) -> float:
        """The DCG of the best possible order."""
        return _dcg(np.arange(1, len(self.gains) + 1), np.sort(self.gains)[::-1])


def searched(
    task: Search, embedder: Embedder, column: str, as_queries: Callable[[np.ndarray], np.ndarray] | None = None
) -> dict[str, Score]:
    """The measures of a search by name, one item a query; by BM25 instead of vectors in the column of that name.

    `as_queries` changes the vectors of queries, where a network reads them otherwise than documents.

    Raises UserError if parts of the task do not belong together.
    """
    _check(task)
    if column == WORDS:
        queries, documents = bm25(task.queries, task.documents)
    else:
        asked = embedder(task.queries)
        embedded = asked if as_queries is None else as_queries(np.asarray(asked)), embedder(task.documents)
        for vectors in embedded:
            require_finite(vectors, f"column {column!r}")
        queries, documents = (unit_rows(vectors) for vectors in embedded)
    rankings = list(_rankings(task, queries, documents))
    scores = {}
    for name in task.measures:
        value, chance = MEASURES[name]
        items = np.array([value(answers) for answers in rankings], dtype=np.float64)  # [Q]
        scores[f"{task.name}_{name}"] = Score(items, chance=float(np.mean([chance(answers) for answers in rankings])))
    return scores


def answers_in(scores: np.ndarray, gains: np.ndarray) -> Answers:
    """Ranks of the answers among K candidates by their scores [K]; gains [K] are 0 for other documents."""
    is_answer = gains > 0
    order = np.lexsort((gains[is_answer], -scores[is_answer]))  # best score first; of a tie, the least gain first
    own = scores[is_answer][order]  # [R]
    ahead = (scores[~is_answer][None, :] >= own[:, None]).sum(axis=1)  # [R] others before each answer
    return Answers(ahead + np.arange(1, len(own) + 1), gains[is_answer][order], len(scores))


def ndcg(answers: Answers) -> float:
    """nDCG@10 in [0, 1]; 1 = the first ranks are ideal."""
    counted = answers.ranks <= CUT
    return _dcg(answers.ranks[counted], answers.gains[counted]) / answers.ideal


def recall(answers: Answers) -> float:
    """Recall@10 in [0, 1]; at most 10 / R where a query has R > 10 answers."""
    return float((answers.ranks <= CUT).mean())


def top1(answers: Answers) -> float:
    return float(answers.ranks[0] == 1)


def reciprocal_rank(answers: Answers) -> float:
    return float(1 / answers.ranks[0])


def random_ndcg(answers: Answers) -> float:
    """Expected nDCG of a random order: every rank has the mean gain."""
    ranks = np.arange(1, min(CUT, answers.candidates) + 1)
    return _dcg(ranks, np.full(len(ranks), answers.gains.sum() / answers.candidates)) / answers.ideal


def random_recall(answers: Answers) -> float:
    return min(CUT, answers.candidates) / answers.candidates


def random_top1(answers: Answers) -> float:
    return len(answers.gains) / answers.candidates


def random_reciprocal_rank(answers: Answers) -> float:
    """Sum over r of P(first answer at rank r) / r; for one answer among N this is (1 + 1/2 + ... + 1/N) / N."""
    ranks = np.arange(1, answers.candidates - len(answers.gains) + 2)  # where the first of R answers can be
    here = len(answers.gains) / (answers.candidates - ranks + 1)  # if it was not before
    not_before = np.concatenate([[1.0], np.cumprod(1 - here)[:-1]])
    return float((not_before * here / ranks).sum())


Measure = Callable[[Answers], float]
MEASURES: dict[str, tuple[Measure, Measure]] = {  # the value of a ranking, and that of a random one
    "ndcg10": (ndcg, random_ndcg),
    "recall10": (recall, random_recall),
    "top1": (top1, random_top1),
    "mrr": (reciprocal_rank, random_reciprocal_rank),
}


def _dcg(ranks: np.ndarray, gains: np.ndarray) -> float:
    counted = ranks <= CUT
    return float((gains[counted] / np.log2(ranks[counted] + 1)).sum())


def _rankings(task: Search, queries: Vectors, documents: Vectors) -> Iterator[Answers]:
    """Rank the answers of each query; `queries` [Q, V] and `documents` [C, V] score by inner products."""
    rows = max(1, SCORES_AT_ONCE // len(task.documents))
    for start in range(0, len(task.queries), rows):
        block = inner_products(queries[start : start + rows], documents).round(DECIMALS)  # [n, C]
        for number, scores in enumerate(block, start=start):
            gains = np.zeros(len(scores))  # [C]
            for document, gain in task.gains[number].items():
                gains[document] = gain
            candidates = _candidates(task, number, len(scores))
            yield answers_in(scores[candidates], gains[candidates])


def _candidates(task: Search, query: int, documents: int) -> np.ndarray:
    """[K] numbers of the documents that the query ranks."""
    if task.pools is not None:
        return task.pools[query][task.pools[query] >= 0]
    return np.delete(np.arange(documents), task.left_out[query]) if query in task.left_out else np.arange(documents)


def _check(task: Search) -> None:
    count = len(task.queries)
    if not count or count != len(task.gains) or (task.pools is not None and len(task.pools) != count):
        raise UserError(f"{count} queries, but answers for {len(task.gains)}; there must be as many, and at least one")
    for number, gains in enumerate(task.gains):
        candidates = set(_candidates(task, number, len(task.documents)).tolist())
        if not gains or min(gains.values()) <= 0 or not candidates.issuperset(gains) or len(candidates) < 2:
            raise UserError(f"query {number} needs two candidates, and an answer of gain above 0 among them")
