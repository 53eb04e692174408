"""Laws of the scorecard: intervals equal SciPy's, every number has its neighbours, harm is called by its name."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.method import Method, StepOutput
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Answers, Classification, Prediction, Similarity, Triplets
from openjepa.evals.baselines import tfidf_for
from openjepa.evals.features import Embedder, Vectors
from openjepa.evals.scorecard import Measure, Scorecard
from openjepa.evals.scores import Score, difference_interval, spearman_rows
from openjepa.evals.suite import evaluate, run_suite

WORDS = [f"w{n}" for n in range(8)]


def text(topic: int, number: int) -> str:
    return f"{WORDS[topic]} n{number}"


def tasks() -> list[Classification | Triplets | Similarity]:
    """Two factors of one corpus (which share their texts as equal, not identical, lists), triplets and pairs."""
    corpus = [(n % 4, n) for n in range(500)]
    train, test = corpus[:300], corpus[300:]

    def factor(name: str, classes: int) -> Classification:
        return Classification(
            name,
            [text(*row) for row in train],
            [topic % classes for topic, _ in train],
            [text(*row) for row in test],
            [topic % classes for topic, _ in test],
            tuple(WORDS[:classes]),
        )

    anchors, near, far = (
        [text(0, n) for n in range(200)],
        [text(0, -n) for n in range(200)],
        [text(1, n) for n in range(200)],
    )
    scores = [float(n % 2) for n in range(200)]
    pairs = Similarity("pairs", anchors, [a if s else f for a, f, s in zip(near, far, scores, strict=True)], scores)
    return [factor("topic", 4), factor("parity", 2), Triplets("triplets", anchors, near, far), pairs]


def knows_topic(strength: float, seed: int = 0) -> Embedder:
    """Noise that is a function of the text, plus `strength` times a direction of its topic."""
    directions = np.random.default_rng(99).normal(size=(len(WORDS), 16))

    def embed(inputs: Sequence[str]) -> np.ndarray:
        noise = np.stack([np.random.default_rng([seed, *item.encode()]).normal(size=16) for item in inputs])
        topics = [WORDS.index(item.split()[0]) for item in inputs]
        return (noise + strength * directions[topics]).astype(np.float32)

    return embed


def columns(run: float, init: float) -> dict[str, Embedder]:
    return {
        "run": knows_topic(run),
        "init": knows_topic(init, seed=1),
        "random": knows_topic(0, seed=2),
        "tfidf": tfidf_for(tasks()),
    }


@pytest.fixture(scope="module")
def helped() -> Scorecard:
    return run_suite(tasks(), columns(run=2.0, init=0.0))


@pytest.fixture(scope="module")
def hurt() -> Scorecard:
    return run_suite(tasks(), columns(run=0.0, init=2.0))


def test_paired_interval_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random(400) < 0.7).astype(float)
    b = np.where(rng.random(400) < 0.8, a, 1 - a)
    ours = difference_interval(Score(a, 0), Score(b, 0), generator_for(0, "x"), resamples=20_000)
    scipys = stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=rng,
    ).confidence_interval
    np.testing.assert_allclose(ours, scipys, atol=0.003)
    unpaired_width = 2 * 1.96 * np.sqrt((a.var() + b.var()) / 400)
    assert ours[1] - ours[0] < unpaired_width * 0.8  # what pairing buys


def test_interval_is_a_function_of_its_address_and_not_of_its_blocks(monkeypatch) -> None:
    a, b = np.arange(50.0) % 3, np.arange(50.0) % 2
    whole = difference_interval(Score(a, 0), Score(b, 0), generator_for(0, "x"))
    assert whole == difference_interval(Score(a, 0), Score(b, 0), generator_for(0, "x"))
    assert whole != difference_interval(Score(a, 0), Score(b, 0), generator_for(0, "y"))
    monkeypatch.setattr("openjepa.evals.scores.DRAWS_AT_ONCE", 100)
    assert whole == difference_interval(Score(a, 0), Score(b, 0), generator_for(0, "x"))


def test_spearman_is_resampled_by_pairs_as_scipy_does() -> None:
    rng = np.random.default_rng(1)
    gold = rng.normal(size=(3, 80)).round(1)
    noisy = gold + rng.normal(size=(3, 80))
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(noisy, gold, strict=True)]
    np.testing.assert_allclose(spearman_rows(noisy, gold), expected)
    good, bad = Score(noisy[0], 0, gold[0]), Score(rng.normal(size=80), 0, gold[0])
    low, high = difference_interval(good, bad, generator_for(0, "x"))
    assert low < good.value - bad.value < high
    assert low > 0


def test_json_holds_four_columns_chance_and_interval_for_every_measure(helped: Scorecard) -> None:
    data = json.loads(json.dumps(helped.to_json()))
    assert list(data) == ["topic_knn", "topic_logistic", "parity_knn", "parity_logistic", "triplets", "pairs"]
    for row in data.values():
        assert list(row) == ["run", "init", "random", "tfidf", "chance", "run_minus_init", "interval", "control"]
        assert row["run_minus_init"] == pytest.approx(row["run"] - row["init"])
        assert row["interval"][0] <= row["run_minus_init"] <= row["interval"][1]
    assert data["triplets"]["chance"] == 0.5
    assert data["topic_knn"]["chance"] == data["topic_logistic"]["chance"] == 0.25
    assert data["topic_logistic"]["tfidf"] == 1.0
    assert Scorecard.from_json(data) == helped


def test_help_is_reported(helped: Scorecard) -> None:
    assert helped.worse() == []
    assert helped.sentence().startswith("training helped on 6 of 6 measures: ")
    assert "HURT" not in helped.sentence()
    assert "\n" not in helped.sentence()


def test_harm_is_called_hurt(hurt: Scorecard) -> None:
    assert set(hurt.worse()) == set(hurt.measures)
    assert hurt.sentence().startswith("training HURT: below its own initialisation on 6 of 6")
    assert "tfidf is above the run on" in hurt.sentence()


def test_no_difference_is_not_called_help() -> None:
    scorecard = run_suite(tasks(), {**columns(run=1.0, init=0.0), "init": knows_topic(1.0)})
    assert scorecard.worse() == scorecard.better() == []
    assert scorecard.sentence().startswith("training made no clear difference on 6 of 6")


def measure(run: float, init: float, margin: float = 0.01) -> Measure:
    values = {"run": run, "init": init, "random": 0.2, "tfidf": 0.5}
    return Measure(values, chance=0.1, interval=(run - init - margin, run - init + margin))


def test_the_sentence_follows_the_majority_of_clear_measures() -> None:
    up, down, flat = measure(0.6, 0.3), measure(0.3, 0.6), measure(0.3, 0.3)
    assert Scorecard({"a": up, "b": up, "c": down}).sentence() == (
        "training helped on 2 of 3 measures: a 0.30 -> 0.60 (chance 0.10), b 0.30 -> 0.60 (chance 0.10); "
        "HURT: below its own initialisation on 1 of 3 measures: c 0.60 -> 0.30 (chance 0.10); "
        "tfidf is above the run on 1 of 3"
    )
    assert Scorecard({"a": up, "b": down, "c": down}).sentence().startswith("training HURT: ")
    assert Scorecard({"a": up, "b": down}).sentence().startswith("training had mixed effects; it HURT: ")
    assert Scorecard({"a": flat}).sentence().startswith("training made no clear difference on 1 of 1; tfidf")
    assert "luck alone would move about 2" in Scorecard({f"m{n}": up for n in range(40)}).sentence()


def test_a_prefix_shared_by_all_names_is_shown_once() -> None:
    scorecard = Scorecard(
        {"synthetic-stories-topic_knn": measure(0.6, 0.3), "synthetic-stories-triplets": measure(0.6, 0.3)}
    )
    text = shown(scorecard, width=80)
    assert text.count("synthetic-stories") == 1
    assert {"topic_knn", "triplets"} <= set(text.split())
    assert list(scorecard.to_json()) == ["synthetic-stories-topic_knn", "synthetic-stories-triplets"]


def shown(scorecard: Scorecard, width: int, color: bool = False) -> str:
    console = Console(width=width, color_system="standard" if color else None, force_terminal=color)
    with console.capture() as capture:
        console.print(scorecard.table())
    return capture.get()


def test_table_says_worse_in_a_word_and_in_colour(hurt: Scorecard) -> None:
    lines = [line.split() for line in shown(hurt, width=80).splitlines()]
    rows = [cells for cells in lines if cells and cells[0] in hurt.measures]
    assert len(rows) == len(hurt.measures)
    for cells, row in zip(rows, hurt.measures.values(), strict=True):
        assert cells[1:6] == [f"{value:.3f}" for value in (*row.values.values(), row.chance)]
        assert cells[-1] == "worse"
    coloured = shown(hurt, width=80, color=True)
    assert "\x1b[31mworse" in coloured  # red
    assert f"\x1b[1m{hurt.measures['topic_knn'].values['init']:.3f}" in coloured  # the best network in bold


def test_a_narrow_terminal_cuts_no_number(hurt: Scorecard) -> None:
    assert "…" not in shown(hurt, width=50)


def test_each_list_of_texts_is_embedded_once_a_column() -> None:
    seen: list[tuple[str, ...]] = []

    def counting(inputs: Sequence[str]) -> Vectors:
        seen.append(tuple(inputs))
        return knows_topic(1.0)(inputs)

    run_suite(tasks(), {**columns(0.0, 0.0), "run": counting})
    assert len(seen) == len(set(seen)) == 6  # train, test; anchors, positives, negatives; second of the pairs


def test_the_column_with_nan_is_named() -> None:
    def broken(inputs: Sequence[str]) -> np.ndarray:
        return np.full((len(inputs), 4), np.nan)

    with pytest.raises(UserError, match=r"'init'.*NaN"):
        run_suite(tasks(), {**columns(1.0, 0.0), "init": broken})
    with pytest.raises(UserError, match=r"'random'.*vectors"):
        run_suite(tasks(), {**columns(1.0, 0.0), "random": lambda inputs: np.ones((3, 2))})


def test_malformed_tasks_are_named() -> None:
    with pytest.raises(UserError, match=r"'odd'.*\[2, 1\]"):
        evaluate(Classification("odd", ["a", "b"], [0], ["a"], [0], ("x",)), knows_topic(1))
    with pytest.raises(UserError, match=r"'one'.*two classes"):
        evaluate(Classification("one", [text(0, 1)] * 3, [0] * 3, [text(0, 1)], [0], ("x",)), knows_topic(1))
    with pytest.raises(UserError, match="empty"):
        evaluate(Triplets("none", [], [], []), knows_topic(1))
    with pytest.raises(UserError, match="share a name"):
        run_suite([*tasks(), *tasks()], columns(1.0, 0.0))
    with pytest.raises(UserError, match="nothing to evaluate"):
        run_suite([], columns(1.0, 0.0))


def test_a_scorecard_without_neighbours_cannot_be_made() -> None:
    for missing in ("init", "random", "tfidf"):
        with pytest.raises(AssertionError):
            run_suite(tasks(), {k: v for k, v in columns(1.0, 0.0).items() if k != missing})


class Knows(Method):
    """A method that answers the first `right` of ten questions."""

    def __init__(self, right: int) -> None:
        super().__init__()
        self.right = right

    def forward(self, batch: Batch) -> StepOutput:
        raise NotImplementedError

    embed = predict_from_context = forward


def ask(method: Method) -> dict[str, Answers]:
    assert not method.training
    assert not torch.is_grad_enabled()
    assert isinstance(method, Knows)
    return {"found": Answers((np.arange(10) < method.right).astype(float), chance=0.1)}


def test_a_prediction_is_asked_of_the_method_and_answered_by_baselines_of_its_own() -> None:
    copying = Prediction("nearest", ask, {"copy": lambda: {"found": Answers(np.full(10, 0.5), chance=0.1)}})
    methods: dict[str, Method] = {"run": Knows(9), "init": Knows(1), "random": Knows(2)}
    scorecard = run_suite([*tasks(), copying], columns(1.0, 0.0), methods)
    assert scorecard.measures["found"].values == {"run": 0.9, "init": 0.1, "random": 0.2, "copy": 0.5}
    assert scorecard.measures["found"].chance == 0.1
    assert scorecard.measures["found"].verdict == "better"
    assert "copy" not in scorecard.measures["triplets"].values, "it answers only its own task"
    assert Scorecard.from_json(scorecard.to_json()) == scorecard
    assert "copy is above the run on 0 of 1" in scorecard.sentence()
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(scorecard.table())
    assert " - " in console.export_text(), "a measure that a column cannot answer shows a dash"


def test_predictions_alone_need_no_vectors() -> None:
    def refuse(inputs: Sequence[str]) -> Vectors:
        raise AssertionError("nothing to embed")

    alone = Prediction("nearest", ask, {"copy": lambda: {"found": Answers(np.zeros(10), chance=0.1)}})
    scorecard = run_suite([alone], dict.fromkeys(("run", "init", "random"), refuse), {
        "run": Knows(5), "init": Knows(5), "random": Knows(0)
    })  # fmt: skip
    assert scorecard.measures["found"].verdict == "unclear"


def test_what_has_no_test_items_is_neither_better_nor_worse() -> None:
    scorecard = Scorecard({"bench": Measure({"run": 0.2, "init": 0.8, "random": 0.1}, None, None)})
    assert (scorecard.worse(), scorecard.untested()) == ([], ["bench"])
    assert (
        "moved bench 0.80 -> 0.20 (chance -) with no or too few test items to tell whether by luck"
        in scorecard.sentence()
    )
    assert "no clear difference" not in scorecard.sentence()


def test_a_control_is_shown_and_never_a_gain_or_a_loss() -> None:
    up, down = measure(0.6, 0.3), measure(0.3, 0.6)
    values = {"run": 0.9, "init": 0.1, "random": 0.1, "tfidf": 0.95}
    control = Measure(values, 0.0, (0.7, 0.9), control=True)
    scorecard = Scorecard({"right": up, "other": down, "shuffled": control})
    assert (scorecard.better(), scorecard.worse(), scorecard.untested()) == (["right"], ["other"], [])
    assert "helped on 1 of 2 measures: right" in scorecard.sentence()
    assert "shuffled" not in scorecard.sentence()
    assert "tfidf is above the run on 1 of 2" in scorecard.sentence()
    assert scorecard.to_json()["shuffled"]["control"] is True
    assert Scorecard.from_json(json.loads(json.dumps(scorecard.to_json()))) == scorecard
    (row,) = [line for line in shown(scorecard, width=120).splitlines() if line.startswith("shuffled")]
    assert row.split()[-1] == "control"
    assert "control: what other measures are read against" in " ".join(shown(scorecard, width=200).split())


@pytest.mark.parametrize(
    ("interval", "word"),
    [((0.0004, 0.002), "unclear"), ((0.0006, 0.002), "better"), ((-0.002, -0.0004), "unclear"),
     ((-0.002, -0.0006), "worse"), ((-0.1, 0.2), "unclear"), (None, "untested")],
)  # fmt: skip
def test_better_and_worse_need_an_interval_that_leaves_out_0_as_it_is_shown(interval, word) -> None:
    gap = Measure({"run": 0.001, "init": 0.0, "random": 0.0}, 0.0, interval)
    assert gap.verdict == word
    assert (word == "better") == ("helped" in Scorecard({"gap": gap}).sentence())


def test_what_a_prediction_calls_a_control_stays_one() -> None:
    def asked(method: Method) -> dict[str, Answers]:
        return {"right": Answers(np.ones(10), 0.1), "wrong": Answers(np.ones(10), 0.1, control=True)}

    methods: dict[str, Method] = {"run": Knows(9), "init": Knows(1), "random": Knows(2)}
    scorecard = run_suite([*tasks(), Prediction("captions", asked)], columns(1.0, 0.0), methods)
    assert [name for name, found in scorecard.measures.items() if found.control] == ["wrong"]
