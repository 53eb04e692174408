"""BM25 equals the formula by hand, and does what it is for: rare words count more, long documents less."""

from __future__ import annotations

import numpy as np
import pytest

from openjepa.core.errors import UserError
from openjepa.evals.bm25 import bm25


def scores(queries: list[str], documents: list[str], **constants: float) -> np.ndarray:
    asked, weights = bm25(queries, documents, **constants)
    return (asked @ weights.T).toarray()  # [Q, C]


def test_scores_are_those_of_the_formula_by_hand() -> None:
    """N = 3, lengths 2, 3, 1 (mean 2); idf(a) = ln(1 + 1.5 / 2.5), idf(d) = ln(1 + 2.5 / 1.5)."""
    found = scores(["a", "A d, a!"], ["a b", "a a c", "d"])
    a, d = 0.470004, 0.980829
    first = a * 1 / (1 + 1.2 * (0.25 + 0.75 * 2 / 2))  # a * 0.454545
    second = a * 2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2))  # a * 0.547945
    third = d * 1 / (1 + 1.2 * (0.25 + 0.75 * 1 / 2))  # d * 0.571429
    np.testing.assert_allclose(found, [[first, second, 0], [2 * first, 2 * second, third]], rtol=1e-5)
    np.testing.assert_allclose([first, second, third], [0.213638, 0.257537, 0.560474], rtol=1e-5)


def test_a_rare_word_counts_more_and_a_word_of_all_documents_still_something() -> None:
    found = scores(["common", "rare"], ["common rare", "common other", "common more"])
    assert 0 < found[0, 0] < found[1, 0]


def test_length_counts_against_a_document_unless_b_is_0() -> None:
    documents = ["wine", "wine and bread and oil"]
    assert scores(["wine"], documents)[0, 0] > scores(["wine"], documents)[0, 1]
    assert np.ptp(scores(["wine"], documents, b=0.0)) == 0


def test_without_damping_every_word_counts_once() -> None:
    found = scores(["wine"], ["wine wine wine", "wine"], k1=0.0)
    assert np.ptp(found) == 0


def test_words_that_no_document_has_count_nothing() -> None:
    assert not scores(["zebra"], ["a b", "c"]).any()
    with pytest.raises(UserError, match="no words"):
        bm25(["a"], ["", "..."])
