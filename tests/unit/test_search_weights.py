"""Weights of search by judged queries: the best of the grid is kept only where it is clearly better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openjepa.core.errors import UserError
from openjepa.core.tasks import Search
from openjepa.data.loading.held_out import word_digest
from openjepa.retrieval.search import Cosines, Weights
from openjepa.retrieval.weights import choose_weights

COUNT = 60


class StubIndex:
    """Documents of which the vectors know nothing, and the words (or nothing) know the answer."""

    path = Path("stub.index")

    def __init__(self, words_know: bool) -> None:
        self.words_know = words_know
        self.kept: Weights | None = None
        self.digests = np.stack([np.frombuffer(word_digest(f"text {n}"), np.uint8) for n in range(COUNT)])

    def __len__(self) -> int:
        return COUNT

    def cosines(self, query: str) -> Cosines:
        number = int(query.split()[-1])
        random = np.random.default_rng(number)
        words = np.full(COUNT, 0.1)
        if self.words_know:
            words[number] = 0.9
        return Cosines(random.random(COUNT), random.random(COUNT), words, np.zeros(COUNT, int))

    def keep_weights(self, weights: Weights) -> None:
        self.kept = weights


def judged(queries: int, shift: int = 0) -> Search:
    """Query n asks for document n; the judged documents stand in another order than in the index."""
    documents = [f"Text  {(n + 7) % COUNT + shift}" for n in range(COUNT)]
    gains = [{documents.index(f"Text  {n + shift}"): 1.0} for n in range(queries)]
    return Search(name="judged", queries=[f"query {n}" for n in range(queries)], documents=documents, gains=gains)


def test_words_that_know_the_answer_are_weighed_more() -> None:
    index: Any = StubIndex(words_know=True)
    chosen = choose_weights(index, judged(40))
    assert chosen.best_weights == Weights(1.0, 0.0, 1.0)
    assert chosen.changed
    assert index.kept == chosen.weights == chosen.best_weights
    assert chosen.gain[0] > 0
    assert chosen.best > chosen.defaults
    assert (chosen.queries, chosen.left_out) == (40, 0)


def test_where_nothing_is_clearly_better_the_defaults_stay() -> None:
    index: Any = StubIndex(words_know=False)
    chosen = choose_weights(index, judged(25))
    assert not chosen.changed
    assert index.kept == Weights()


def test_queries_without_an_answer_in_the_index_are_left_out_and_too_few_are_refused() -> None:
    index: Any = StubIndex(words_know=True)
    assert choose_weights(index, judged(40, shift=15)).left_out == 0  # documents 15 to 74, of which queries ask to 54
    with pytest.raises(UserError, match=r"5 of 40 judged queries have an answer in stub.index"):
        choose_weights(index, judged(40, shift=55))
