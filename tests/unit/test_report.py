"""The report: figures in closed form or by a reference library, escaped texts, a live page that never fails a run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.method import StepOutput
from openjepa.core.progress import Progress
from openjepa.core.rundir import RunDir
from openjepa.core.tasks import Classification
from openjepa.evals.scorecard import Measure, Scorecard
from openjepa.health import signs
from openjepa.health.metrics import effective_rank
from openjepa.pages.run import page, samples, similarity, space
from openjepa.pages.run.curves import curves
from openjepa.pages.run.live import LiveReport
from openjepa.pages.run.logs import read_logs, series
from openjepa.pages.run.page import live_page
from openjepa.pages.run.samples import CLASSES, OTHERS, Factor, Samples, explained
from openjepa.pages.run.scorecard import scorecard_table
from openjepa.pages.run.verdict import in_words, verdict
from openjepa.pages.study import study_page
from openjepa.pages.writing import write_report

FETCHES = re.compile(r"""<(?:script|link|iframe)|@import|url\(|(?:src|href)=["'](?!data:|#)""")


def vectors(count: int = 60, size: int = 8, seed: int = 0) -> np.ndarray:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)).numpy()


def inputs(factors: tuple[Factor, ...] = (), count: int = 60) -> Samples:
    return Samples(
        {"run": vectors(count), "initialisation": vectors(count, seed=1)},
        factors,
        lambda rows: [f"<q>{i}</q>" for i in rows],
        "x",
    )


def record(step: int, **metrics: Any) -> dict[str, Any]:
    base = {"step": step, "status": "healthy", "kind": None, "evidence": "skill 0.5", "advice": "", "also": []}
    return {**base, "score": 0.1, "skill": 0.5, "rank": 30.0, "rank_cap": 64.0, "spread": 0.9, **metrics}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has begun: logs, no checkpoint."""
    path = tmp_path / "run"
    (path / "evals").mkdir(parents=True)
    (path / "config.yaml").write_text("recipe: t_jepa\ndata: {source: '<b>.txt'}\ntrain: {steps: 50, seed: 3}\n")
    RunDir(path).seal()
    (path / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"step": s, "loss": 9 / s, "loss_a": 1 / s, "loss_b": 8 / s, "lr": 1e-3}) + "\n"
            for s in range(1, 31)
        )
    )
    (path / "health.jsonl").write_text("".join(json.dumps(record(s, loss=1.0)) + "\n" for s in (0, 10, 20, 30)))
    return path


def test_pca_is_that_of_scikit_learn_up_to_sign() -> None:
    from sklearn.decomposition import PCA

    given = vectors(50, 6)
    flat, share = space.pca(given)
    reference = PCA(2).fit(given)
    assert np.abs(flat) == pytest.approx(np.abs(reference.transform(given)), abs=1e-5)
    assert share == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-5)
    assert space.pca(np.ones((5, 1)))[0].shape == (5, 2)  # one dimension, no variance


def test_the_spectrum_names_the_effective_rank_of_both_networks() -> None:
    given = inputs()
    drawn = space.spectrum(given)
    for name, found in given.vectors.items():
        assert f"{name} {effective_rank(torch.from_numpy(found)):.1f}" in drawn


def test_explained_variance_is_1_where_labels_decide_and_about_0_where_they_are_random() -> None:
    labels = np.arange(400) % 4
    assert explained(np.eye(4)[labels], labels) == pytest.approx(1)
    assert explained(vectors(400), labels) == pytest.approx(0, abs=0.03)


def test_rare_classes_are_one_class_and_missing_ones_none() -> None:
    labels = [k for k in range(12) for _ in range(k)]  # class 0 never
    task = Classification("t", [], [], ["x"] * len(labels), labels, tuple(f"c{k}" for k in range(12)))
    factor = samples.factor_of(task, np.arange(len(labels)))
    assert factor.classes == (*(f"c{k}" for k in range(11, 4, -1)), OTHERS)
    assert len(factor.classes) == CLASSES
    assert [factor.classes[label] for label in factor.labels] == [f"c{k}" if k > 4 else OTHERS for k in labels]
    few = samples.factor_of(Classification("t", [], [], ["x"] * 3, [2, 0, 2], ("a", "b", "c")), np.arange(3))
    assert (few.classes, few.labels.tolist()) == (("a", "c"), [1, 0, 1])


def test_maps_have_a_drawing_for_each_factor_and_choices_for_the_keyboard() -> None:
    factors = tuple(Factor(f"<f{i}>", np.arange(60) % 3, ("a", "b", "<c>")) for i in range(2))
    drawn = space.maps(inputs(factors))
    assert drawn.count('type="radio"') == 2
    assert drawn.count("<figure") == 4  # the run and its initialisation
    assert "<f0>" not in drawn
    assert "<c>" not in drawn
    assert "radio" not in space.maps(inputs())


def test_umap_is_drawn_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "UMAP" not in space.maps(inputs()) or "umap" in sys.modules
    plane = SimpleNamespace(fit_transform=lambda given: given[:, :2])
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=lambda **settings: plane, __spec__=object()))
    assert "UMAP" in space.maps(inputs())


def test_neighbours_are_the_highest_cosines_without_the_input_itself() -> None:
    given = vectors(30)
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    cosines = unit @ unit[7]
    expected = [i for i in np.argsort(-cosines) if i != 7][:3]
    found, values = similarity.nearest(given, 7)
    assert found == expected
    assert values == pytest.approx(cosines[expected], abs=1e-6)


def test_the_matrix_takes_two_inputs_of_each_value() -> None:
    factor = Factor("topic", np.array([0] * 20 + [1] * 20 + [2] * 19 + [3]), ("a", "b", "c", "d"))
    chosen, values = similarity.pairs_of_values(inputs((factor,)))
    assert chosen == [0, 1, 20, 21, 40, 41]
    assert values == ["a", "a", "b", "b", "c", "c"]
    assert len(similarity.pairs_of_values(inputs())[0]) == similarity.PAIRED
    assert similarity.matrix(inputs((factor,))).count("1.00") == 6


def test_texts_are_escaped_and_cut_after_a_word() -> None:
    assert samples.text_html("<script>") == '<span class="said">&lt;script&gt;</span>'
    long = samples.text_html("word " * 100)
    assert long.endswith("word ...</span>")
    assert len(long) < samples.SHOWN_CHARS + 40


def test_words_say_what_figures_mean() -> None:
    said = " ".join(in_words(record(9, scale=2.0, mean_cosine=0.1), record(0, rank=60.0, scale=4.0)))
    assert "Predictions explain 50% of the targets' variance" in said
    assert "use about that many of 64 possible dimensions; at step 0 it was 60.0" in said
    assert "Size 0.5 x step 0" in said
    assert "no better than the best constant guess" in " ".join(in_words({"skill": -0.2}, {}))


def test_a_verdict_gives_its_advice_and_where_the_word_changed(folder: Path) -> None:
    bad = record(40, status="collapsed", kind="complete", advice="Do <this>.")
    with (folder / "health.jsonl").open("a") as file:
        file.write(json.dumps(bad) + "\n")
    said = verdict(read_logs(folder), ["train.seed=4", "a=<b>"])
    assert 'class="verdict bad"' in said
    assert "Do &lt;this&gt;." in said
    assert "<code>train.seed=4 a=&lt;b&gt;</code>" in said
    assert "healthy from step 0, collapsed (complete) from step 40" in said


def test_limits_are_those_of_the_verdict_and_missing_metrics_make_no_chart(folder: Path) -> None:
    drawn = curves(read_logs(folder))
    assert f"collapsed &lt; {signs.RANK_COLLAPSED * 64:.1f}" in drawn
    assert f"at risk &lt; {signs.RANK_AT_RISK * 64:.1f}" in drawn
    assert f"not learning &lt; {signs.SKILL_FLOOR}" in drawn
    assert "Learning rate" in drawn
    assert "Terms of the loss" in drawn
    assert "Distance of teacher" not in drawn


def test_the_chart_of_the_rate_says_where_the_predictor_is_left_alone(folder: Path) -> None:
    said = "After step 19, only the predictor is trained."
    assert said not in curves(read_logs(folder))
    (folder / "env.json").write_text(json.dumps({"notes": {"predictor_alone_after_step": 19}}))
    assert said in curves(read_logs(folder))


def test_series_skips_what_is_missing_or_not_finite() -> None:
    rows = [
        {"step": 1, "x": 2.0},
        {"step": 2},
        {"step": 3, "x": float("nan")},
        {"step": 4, "x": None},
        {"step": 5, "x": 1},
    ]
    assert series(rows, "x") == [(1, 2.0), (5, 1.0)]


def test_a_scorecard_keeps_its_numbers_and_its_words() -> None:
    scorecard = Scorecard(
        {
            "a_knn": Measure({"run": 0.9, "init": 0.5, "random": 0.4, "<t>": 0.95}, 0.1, (0.3, 0.5)),
            "b_knn": Measure({"run": 0.3, "init": 0.4, "random": 0.35}, 0.1, (-0.2, 0.01)),
        }
    )
    shown = scorecard_table(scorecard, "default")
    assert "<b>0.900</b>" in shown
    assert "+0.400" in shown
    assert "+0.300 to +0.500" in shown
    assert '<span class="better">better</span>' in shown
    assert '<span class="unclear">unclear</span>' in shown
    assert "<t>" not in shown


def test_a_page_of_logs_has_every_section_or_says_why_not_and_fetches_nothing(folder: Path) -> None:
    page = live_page(folder)
    assert re.findall(r'<section id="(\w+)"', page) == ["verdict", "curves", "scorecard", "reproduce"]
    assert "Left out: this run is not evaluated" in page
    assert 'http-equiv="refresh"' in page
    assert "<b>.txt" not in page
    assert not FETCHES.search(page)
    assert all(f'href="#{name}"' in page for name in ("verdict", "curves", "scorecard", "reproduce", "content"))


def test_without_a_checkpoint_or_logs_the_page_explains_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("recipe: t_jepa\n")
    RunDir(tmp_path).seal()
    page = write_report(tmp_path).read_text()
    assert page.count("Left out:") >= 7
    assert "there is no health check yet" in page
    assert "nothing is logged yet" in page


def test_what_is_no_run_and_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run"):
        write_report(tmp_path)


class Step:
    """Calls a live report as training does."""

    def __init__(self, report: LiveReport) -> None:
        self.report, self.step = report, 0

    def __call__(self) -> None:
        self.step += 1
        self.report(Progress(self.step, 50), StepOutput({"prediction": torch.zeros(())}), {})


def test_a_live_page_is_drawn_after_health_checks_only(folder: Path) -> None:
    said: list[str] = []
    step, page = Step(LiveReport(folder, said.append)), folder / "report.html"
    step()
    assert "Made during training, at step 30 of 50" in page.read_text()
    page.unlink()
    step()
    assert not page.exists()
    with (folder / "health.jsonl").open("a") as file:
        file.write(json.dumps(record(40)) + "\n")
    step()
    assert "at step 40 of 50" in page.read_text()
    assert said == []


def test_a_live_page_that_fails_says_so_once_and_never_raises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    step = Step(LiveReport(folder, said.append))
    (folder / "config.yaml").unlink()
    step()
    step()
    assert len(said) == 1
    assert "the live report cannot be written" in said[0]
    step = Step(LiveReport(folder.parent / "not yet", said.append))
    step()  # before the folder is there


def test_an_error_is_met_once_and_shown_by_every_section() -> None:
    calls: list[int] = []

    def make() -> Samples:
        calls.append(1)
        raise UserError("no data")

    ask = page.once(make)
    for _ in range(3):
        with pytest.raises(UserError, match="no data"):
            ask()
    assert len(calls) == 1
    given = inputs()
    assert page.once(lambda: given)() is given


def study(cost: float | None) -> dict[str, Any]:
    def arm(label: str, value: float) -> dict[str, Any]:
        measures = {"mean knn": {"mean": value, "by_seed": [value] * 2, "init": 0.2, "chance": 0.1}}
        facts = {"train_s": 3.0, "tokens": 2e6, "flops": cost, "steps": 9.0}
        by_seed = {"0": value, "1": value}
        verdicts = {"verdict": "healthy", "skill": value, "skill_by_seed": by_seed, "seeds": [0, 1], "stopped": {}}
        return {"label": label, "recipe": "t_jepa", "changed": {}, "measures": measures, **verdicts, **facts}

    difference = {
        "arm": "<b>", "measure": "mean knn", "headline": True, "value": 0.3, "interval": [0.2, 0.4], "agreeing": 2,
        "seeds": 2, "p_items": 1e-4, "p_seeds": 0.5, "p_items_holm": 2e-4, "p_seeds_holm": 0.5,
    }  # fmt: skip
    return {
        "kind": "compare", "recipes": ["a", "<b>"], "settings": [], "budget": {"unit": "flops", "amount": 2e12},
        "out": "x", "seeds": [0, 1], "jobs": 1, "base": "a", "headlines": ["skill", "mean knn"],
        "arms": [arm("a", 0.4), arm("<b>", 0.7)], "differences": [difference],
        "baselines": {"tfidf": {"mean knn": 0.6}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cost", "unit", "axis_name"),
    [
        (1e12, "flops", "seconds of training"),
        (1e12, "minutes", "FLOPs of training"),
        (None, "tokens", "seconds of training"),
        (1e12, None, "FLOPs of training"),
    ],
)
def test_quality_is_drawn_against_a_cost_that_differs(
    tmp_path: Path, cost: float | None, unit: str | None, axis_name: str
) -> None:
    found = study(cost) | {"budget": unit and {"unit": unit, "amount": 3}}
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert axis_name in study_page(tmp_path)


def test_the_page_of_a_study(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(study(1e12)))
    page = study_page(tmp_path)
    assert not FETCHES.search(page)
    assert "&lt;b&gt; is better on 1 of 1 headlines" in page
    assert "+0.200 to +0.400" in page
    assert "&lt; 0.001" in page
    assert "2 T flops" in page
    assert "Left out: the cells of this study are not in its folder any more" in page
    assert "<b>:" not in page
