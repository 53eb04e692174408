"""Laws of retrieval: closed-form cosines and ranks, ties and collapse get nothing, chance is what blind guesses get."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.method import Latents, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Classification, Retrieval, Vectors
from openjepa.evals import alignment
from openjepa.evals.alignment import curve_point, random_cosines, retrieved
from openjepa.evals.baselines import has_words, tfidf_for
from openjepa.evals.suite import evaluate, run_suite
from openjepa.health.monitor import HealthMonitor

EAST, NORTH, WEST, NORTHEAST = (1.0, 0.0), (0.0, 2.0), (-3.0, 0.0), (1.0, 1.0)
CANDIDATES = np.array([EAST, NORTH, WEST, NORTHEAST])


def test_cosines_and_ranks_of_a_small_case() -> None:
    predicted = np.array([EAST, EAST, NORTHEAST])
    pools = np.array([[0, 1, 2, 3], [2, 0, 1, -1], [1, 2, 0, -1]])
    found = retrieved(predicted, CANDIDATES, pools)
    half = math.sqrt(0.5)
    assert np.allclose(found.own, [1, -1, half])
    assert np.allclose(found.others, [(0 - 1 + half) / 3, 0.5, 0])
    assert found.ranks.tolist() == [1, 3, 2]  # the last ties with east
    assert found.sizes.tolist() == [4, 3, 3]
    measures = found.measures()
    assert measures["top1"].items.tolist() == [1, 0, 0]
    assert measures["top1"].chance == pytest.approx((1 / 4 + 1 / 3 + 1 / 3) / 3)
    assert np.allclose(measures["mrr"].items, [1, 1 / 3, 1 / 2])
    assert measures["mrr"].chance == pytest.approx((25 / 12 / 4 + 2 * 11 / 6 / 3) / 3)
    assert np.allclose(measures["aligned"].items, found.own - found.others)


def test_a_cone_is_no_alignment() -> None:
    """Cosines of 0.999 with the own and with every other target: aligned is 0, and the rank is no better than luck."""
    noise = np.random.default_rng(0).normal(size=(2, 400, 16)) * 0.01
    predicted, targets = noise + np.eye(16)[0]
    pools = np.array([np.roll(np.arange(400), -i)[:100] for i in range(400)])
    found = retrieved(predicted, targets, pools)
    measures = found.measures()
    assert found.own.mean() > 0.99
    assert abs(measures["aligned"].items.mean()) < 1e-3
    assert measures["mrr"].items.mean() == pytest.approx(measures["mrr"].chance, abs=0.02)


def test_a_collapsed_method_gets_nothing() -> None:
    same = np.ones((5, 3))
    pools = np.array([np.roll(np.arange(5), -i) for i in range(5)])
    found = retrieved(same, same + 1e-9, pools)
    assert found.ranks.tolist() == [5] * 5
    assert found.measures()["top1"].items.sum() == 0


def test_chance_is_what_blind_guesses_get() -> None:
    rng = np.random.default_rng(1)
    pools = np.array([rng.permutation(50)[:20] for _ in range(4000)])
    pools[::2, 10:] = -1
    found = retrieved(rng.normal(size=(4000, 64)), rng.normal(size=(50, 64)), pools)
    for name, (items, chance, *_) in found.measures().items():
        assert items.mean() == pytest.approx(chance, abs=4 * items.std() / math.sqrt(4000)), name


def test_order_blocks_and_norms_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    predicted, candidates = rng.normal(size=(30, 8)), rng.normal(size=(12, 8))
    pools = np.array([rng.permutation(12)[:7] for _ in range(30)])
    whole = retrieved(predicted, candidates, pools)
    shuffled = np.concatenate([pools[:, :1], pools[:, :0:-1]], axis=1)
    monkeypatch.setattr(alignment, "COSINES_AT_ONCE", 30)
    other = retrieved(predicted * rng.uniform(1, 9, size=(30, 1)), sparse.csr_array(candidates), shuffled)
    assert np.allclose(whole.own, other.own)
    assert np.allclose(whole.others, other.others)
    assert whole.ranks.tolist() == other.ranks.tolist()


def test_random_directions_have_no_cosine() -> None:
    found = random_cosines(np.random.default_rng(3).normal(size=(4000, 64)) + 5)
    assert abs(found.mean()) < 4 / math.sqrt(64 * 4000)
    assert found.std() == pytest.approx(1 / 8, rel=0.05)


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ([[0, 1], [1, 4]], "candidate 4"),
        ([[0, 1], [-1, 1]], "its target"),
        ([[0, 1], [1, -1]], "another candidate"),
        ([[0, 1]], "do not belong together"),
    ],
)
def test_malformed_pools_are_named(pools: list, said: str) -> None:
    with pytest.raises(UserError, match=said):
        retrieved(np.ones((2, 2)), CANDIDATES, np.array(pools))


@dataclass(kw_only=True)
class Points(Batch):
    x: torch.Tensor  # [B, 4]


class Knows(Method[Points]):
    """Predicts item i as candidate i, with noise."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, batch: Points) -> StepOutput:
        return StepOutput({"prediction": batch.x.sum()}, Latents(batch.x, batch.x))

    def embed(self, batch: Points) -> torch.Tensor:
        return batch.x

    predict_from_context = embed


def pick_a_word(method: Knows) -> Vectors:
    assert not method.training
    rng = np.random.default_rng(5)
    return Vectors(np.eye(4) + method.noise * rng.normal(size=(4, 4)), np.eye(4))


TEXTS = (["a red fox", "one blue bird", "some green frog", "two old dogs"], ["red", "blue", "green", "cats"])
POOLS = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3], [3, 0, 1, 2]])
TASK = Retrieval("words", POOLS, pick_a_word, TEXTS, {"first": lambda: Vectors(np.eye(4)[[0] * 4], np.eye(4))})


def test_every_column_of_a_retrieval_chooses_in_the_same_pools() -> None:
    methods = {"run": Knows(0), "init": Knows(9), "random": Knows(9)}

    def no_vectors(inputs: object) -> np.ndarray:
        raise AssertionError("a retrieval asks the method, not for vectors of texts")

    columns = {"run": no_vectors, "init": no_vectors, "random": no_vectors, "tfidf": tfidf_for([TASK])}
    scorecard = run_suite([TASK], columns, methods)
    assert list(scorecard.measures) == ["words_top1", "words_mrr", "words_aligned"]
    top1 = scorecard.measures["words_top1"]
    assert top1.values["run"] == 1
    assert top1.values["tfidf"] == 0.75  # no word of the last text is a candidate: a tie, which is no answer
    assert top1.values["first"] == 0.25
    assert top1.chance == 0.25
    assert scorecard.measures["words_aligned"].values["run"] == 1
    assert methods["run"].training


def test_a_health_check_measures_what_it_is_asked_to_watch() -> None:
    points = Points(keys=torch.arange(6), x=torch.randn(6, 4, generator=generator_for(0, "test")))
    monitor = HealthMonitor([points], watch=partial(curve_point, TASK))
    record = monitor.check(Knows(0), Progress(0, 1))
    assert (record["own_cosine"], record["shuffled_cosine"], record["mrr"], record["top1"]) == (1, 0, 1, 1)
    assert abs(record["random_cosine"]) < 1
    assert record["top1_chance"] == 0.25
    assert record["mrr_chance"] == pytest.approx(25 / 48)


def test_only_the_measures_asked_for_are_given() -> None:
    few = Retrieval("words", POOLS, pick_a_word, measures=("top1",))
    assert list(evaluate(few, tfidf_for([TASK]), Knows(0))) == ["words_top1"]
    assert evaluate(few, tfidf_for([TASK]), None, "tfidf") == {}
    assert not has_words([few])
    assert has_words([few, TASK])
    assert has_words([Classification("c", ["a"], [0], ["b"], [0], ("x",))])


def test_vectors_that_are_not_finite_are_named() -> None:
    broken = Retrieval("words", POOLS, lambda method: Vectors(np.full((4, 4), np.nan), np.eye(4)))
    with pytest.raises(UserError, match=r"'words'.*'run', predictions"):
        evaluate(broken, tfidf_for([TASK]), Knows(0))
