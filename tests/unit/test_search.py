"""Ranking measures equal scikit-learn's and closed forms; chance is the mean over all orders; ties never help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from openjepa.core.errors import UserError
from openjepa.core.tasks import Search
from openjepa.evals.baselines import tfidf_for
from openjepa.evals.scorecard import Scorecard
from openjepa.evals.search import CUT, MEASURES, answers_in, ndcg, recall, reciprocal_rank, searched, top1
from openjepa.evals.suite import run_suite

DIRECTIONS = {"north": [1.0, 0.0], "east": [0.0, 1.0], "northeast": [1.0, 1.0], "south": [-1.0, 0.0]}


def compass(texts: Sequence[str]) -> np.ndarray:
    return np.array([DIRECTIONS[text] for text in texts])


def search(**changed) -> Search:
    task = Search("find", ["north", "east"], ["northeast", "north", "south", "east"], [{1: 1.0}, {0: 1.0}])
    return replace(task, **changed)


def ranked(*gains: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores that put these gains in this order."""
    return -np.arange(len(gains), dtype=float), np.array(gains)


@pytest.mark.parametrize("candidates", [4, 30])
def test_ndcg_equals_scikit_learn(candidates: int) -> None:
    draw = np.random.default_rng(candidates)
    for _ in range(50):
        scores, gains = draw.normal(size=candidates), draw.integers(0, 4, candidates).astype(float)
        gains[draw.integers(candidates)] = 2.0  # one answer at least
        assert ndcg(answers_in(scores, gains)) == pytest.approx(ndcg_score(gains[None], scores[None], k=CUT))


def test_values_in_closed_form() -> None:
    third = answers_in(*ranked(0, 0, 1, 0))
    assert (ndcg(third), recall(third), top1(third)) == (pytest.approx(0.5), 1.0, 0.0)  # 1 / log2(4)
    assert reciprocal_rank(third) == pytest.approx(1 / 3)
    two = answers_in(*ranked(1, 0, 3))  # graded: (1 + 3 / 2) of (3 + 1 / log2(3))
    assert ndcg(two) == pytest.approx(2.5 / (3 + 1 / np.log2(3)))
    late = answers_in(*ranked(1, *[0] * 10, 1))
    assert (recall(late), ndcg(late)) == (0.5, pytest.approx(1 / (1 + 1 / np.log2(3))))


def test_of_a_tie_the_worse_comes_first() -> None:
    constant = answers_in(np.zeros(4), np.array([0, 2.0, 0, 1.0]))
    assert constant.ranks.tolist() == [3, 4]
    assert constant.gains.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("gains", [(1, 0, 0, 0), (1, 3, 0, 0, 0), (1, 1, 1)])
@pytest.mark.parametrize("name", MEASURES)
def test_chance_is_the_mean_over_all_orders(name: str, gains: tuple[float, ...]) -> None:
    value, chance = MEASURES[name]
    every = [answers_in(*ranked(*order)) for order in permutations(gains)]
    assert np.mean([value(answers) for answers in every]) == pytest.approx(chance(every[0]))


def test_chance_beyond_the_cut() -> None:
    many = answers_in(np.random.default_rng(0).normal(size=40), np.array([1.0] * 3 + [0.0] * 37))
    assert MEASURES["recall10"][1](many) == 0.25
    drawn = [
        answers_in(np.random.default_rng(n).normal(size=40), np.array([1.0] * 3 + [0.0] * 37)) for n in range(4000)
    ]
    assert np.mean([ndcg(one) for one in drawn]) == pytest.approx(MEASURES["ndcg10"][1](many), rel=0.05)


def test_a_search_ranks_by_cosine() -> None:
    found = searched(search(measures=("top1", "mrr")), compass, "run")
    assert found["find_top1"].items.tolist() == [1.0, 0.0]  # east finds itself before the northeast
    assert found["find_mrr"].items.tolist() == [1.0, 0.5]
    assert found["find_top1"].chance == 0.25


def test_what_is_left_out_or_outside_the_pool_is_no_candidate() -> None:
    without = searched(search(measures=("top1",), left_out={1: 3}), compass, "run")["find_top1"]
    assert without.items.tolist() == [1.0, 1.0]
    assert without.chance == pytest.approx((1 / 4 + 1 / 3) / 2)
    pooled = searched(search(measures=("top1",), pools=np.array([[1, 2, 3], [2, 0, -1]])), compass, "run")["find_top1"]
    assert pooled.items.tolist() == [1.0, 1.0]
    assert pooled.chance == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_a_collapsed_encoder_finds_nothing() -> None:
    noise = np.random.default_rng(0)
    found = searched(search(measures=("mrr",)), lambda texts: 1 + 1e-9 * noise.normal(size=(len(texts), 4)), "run")
    assert found["find_mrr"].items.tolist() == [0.25, 0.25]


def test_a_scorecard_has_networks_and_both_baselines_of_words() -> None:
    task = search()
    columns = dict.fromkeys(("run", "init", "random"), compass) | {"tfidf": tfidf_for([task])}
    scorecard = run_suite([task], columns)
    assert scorecard.columns() == ["run", "init", "random", "tfidf", "bm25"]
    assert scorecard.measures["find_ndcg10"].values["bm25"] == pytest.approx(
        (1 + 1 / np.log2(5)) / 2
    )  # a tie of two zeros
    assert scorecard.measures["find_ndcg10"].interval == (0.0, 0.0)
    assert Scorecard.from_json(scorecard.to_json()) == scorecard


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"gains": [{1: 1.0}]}, "2 queries"),
        ({"gains": [{1: 1.0}, {}]}, "query 1"),
        ({"gains": [{1: 1.0}, {9: 1.0}]}, "query 1"),
        ({"gains": [{1: 0.0}, {0: 1.0}]}, "query 0"),
        ({"pools": np.array([[1, 2], [2, 3]])}, "query 1"),
        ({"left_out": {0: 1}}, "query 0"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changed: dict, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        searched(search(**changed), compass, "run")
