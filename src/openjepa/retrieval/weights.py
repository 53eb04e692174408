"""Weights of search, chosen by judged queries: the best of a small grid, if it is clearly better than the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Search
from openjepa.data.loading.held_out import word_digest
from openjepa.evals.scores import Score, difference_interval
from openjepa.evals.search import answers_in, ndcg
from openjepa.retrieval.search import Index, Weights

GRID = (0.0, 0.25, 0.5, 1.0)  # weights of the nearest sentence and of the words, beside 1 for the document's vector
FEWEST_QUERIES = 20


@dataclass(frozen=True)
class ChosenWeights:
    """The weights that are kept, and nDCG@10 of the defaults and of the best of the grid on the judged queries."""

    weights: Weights
    queries: int
    left_out: int  # queries of which the index holds no answer
    defaults: float
    best: float
    best_weights: Weights
    gain: tuple[float, float]  # 95 % interval of best - defaults, over queries

    @property
    def changed(self) -> bool:
        """Whether the best of the grid is kept, since its gain is above 0 in the whole interval."""
        return self.weights != Weights()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def choose_weights(index: Index, judged: Search) -> ChosenWeights:
    """Compare a grid of weights on judged queries, and keep the best in the index, or the defaults.

    Documents are found in the index by their words. Raises UserError if fewer than 20 queries have an answer there.
    """
    number = {row.tobytes(): n for n, row in enumerate(index.digests)}
    rows = [number.get(word_digest(text)) for text in judged.documents]
    answers: list[tuple[str, dict[int, float]]] = []
    for query, gains in zip(judged.queries, judged.gains, strict=True):
        there = {row: gain for document, gain in gains.items() if (row := rows[document]) is not None}
        if there:
            answers.append((query, there))
    if len(answers) < FEWEST_QUERIES:
        raise UserError(
            f"{judged.name}: {len(answers)} of {len(judged.queries)} judged queries have an answer in {index.path}, "
            f"and weights are chosen by {FEWEST_QUERIES} at least; index the judged documents too"
        )
    grid = [Weights(1.0, sentence, words) for sentence, words in product(GRID, GRID)]
    found = np.array([_ndcg_of(index, query, gains, grid) for query, gains in answers])  # [Q, G]
    defaults = grid.index(Weights())
    best = int(found.mean(axis=0).argmax())
    generator = generator_for(0, "weights", judged.name)
    interval = difference_interval(Score(found[:, best], None), Score(found[:, defaults], None), generator)
    chosen = ChosenWeights(
        weights=grid[best] if interval[0] > 0 else Weights(),
        queries=len(answers),
        left_out=len(judged.queries) - len(answers),
        defaults=float(found[:, defaults].mean()),
        best=float(found[:, best].mean()),
        best_weights=grid[best],
        gain=interval,
    )
    index.keep_weights(chosen.weights)
    return chosen


def _ndcg_of(index: Index, query: str, gains: Mapping[int, float], grid: list[Weights]) -> list[float]:
    """nDCG@10 of a query with each of the weights."""
    every = np.zeros(len(index))
    every[list(gains)] = list(gains.values())
    cosines = index.cosines(query)
    return [ndcg(answers_in(cosines.scores(weights).round(6), every)) for weights in grid]
