"""Studies without training: what is varied, where cells go, what their results say, and how they are shown."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from openjepa.core.errors import ConfigError, UserError
from openjepa.core.rundir import RunDir, write_json
from openjepa.core.seeding import generator_for
from openjepa.evals.scores import Score
from openjepa.studies import plot, results, running, scoring, table
from openjepa.studies.cells import Arm, Cell, cells_of, folder_name, prepare, processes_for, stop_file
from openjepa.studies.factors import BASE, ablation_arms, single_values, split_factors, split_values
from openjepa.studies.results import ArmResult, compared, headlines, summary, with_headlines
from openjepa.studies.scoring import Scored


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.3", ["0.3"]),
        ("0.3,0.5", ["0.3", "0.5"]),
        ("[0.9,0.99],[0.9,0.95]", ["[0.9,0.99]", "[0.9,0.95]"]),
        ("{a: [1,2]},null", ["{a: [1,2]}", "null"]),
        ("'a,b.jsonl',c", ["'a,b.jsonl'", "c"]),
        ("it's,so", ["it's", "so"]),
        ("a,", ["a", ""]),
        ("", [""]),
    ],
)
def test_commas_separate_values_but_not_within_brackets_or_quotes(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_a_key_with_one_value_is_a_setting() -> None:
    assert split_factors(["mask.ratio=0.3,0.5", "train.steps=9"]) == ({"mask.ratio": ["0.3", "0.5"]}, ["train.steps=9"])


def test_one_factor_at_a_time_leaves_the_rest_as_it_is() -> None:
    arms = ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,0.5,0.7", "regularizer.name=sigreg,vicreg", "steps=50"])
    assert [arm.label for arm in arms] == ["base", "mask.ratio=0.3", "mask.ratio=0.7", "regularizer.name=sigreg"]
    assert all(arm.config.train.steps == 50 for arm in arms)  # 0.5 and vicreg are the preset's own
    assert [arm.config.mask.ratio for arm in arms] == [0.5, 0.3, 0.7, 0.5]
    assert arms[1].changed == {"mask.ratio": 0.3}
    assert arms[1].config.model_copy(update={"mask": arms[0].config.mask}) == arms[0].config


def test_a_grid_has_every_combination_and_the_base() -> None:
    factors = ["mask.ratio=0.3,0.7", "train.betas=[0.9,0.99],[0.8,0.9]"]
    arms = ablation_arms("t_jepa", None, None, factors, grid=True)
    assert [arm.label for arm in arms] == [
        "base",
        "mask.ratio=0.3 train.betas=[0.9,0.99]",
        "mask.ratio=0.3 train.betas=[0.8,0.9]",
        "mask.ratio=0.7 train.betas=[0.9,0.99]",
        "mask.ratio=0.7 train.betas=[0.8,0.9]",
    ]
    assert arms[2].config.train.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.steps=5", "data.documents=9"], "which of train.steps, data.documents is varied"),
        (["mask.ratio=0.5"], "only the values"),
        (["mask.ratio=0.3,"], "empty value"),
        (["mask.ratio=0.3,0.4", "mask.ratio=0.6,0.7"], "given twice"),
        (["seed=1,2"], "--seeds N"),
        (["mask.ratio=0.5,0.50"], "only the values"),
        (["mask.ratio=2,3", "mosk=1,2"], "mask.ratio.*mask.ratio.*mosk"),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ablation_arms("t_jepa", None, None, overrides)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,2", "train.lr=-1,1e-3"])
    assert "mask.ratio" in str(error.value)
    assert "train.lr" in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "labels", "said"),
    [
        (["mask.ratio=0.3"], ["mask.ratio=0.3"], "2 arms: comparing mask.ratio=0.3 with the preset's own 0.5"),
        (["ratio=0.3", "steps=20"], ["mask.ratio=0.3"], "2 arms: comparing mask.ratio=0.3 with the preset's own 0.5"),
        (["train.lr=1e-2"], ["train.lr=1e-2"], "2 arms: comparing train.lr=1e-2 with the preset's own 0.003"),
        (["mask.ratio=0.3,0.4", "mask.mean_span=4"], ["mask.ratio=0.3", "mask.ratio=0.4"], None),
    ],
)
def test_a_single_value_is_compared_with_the_presets_own(overrides: list[str], labels: list[str], said: str) -> None:
    arms = ablation_arms("t_jepa", None, None, overrides)
    assert [arm.label for arm in arms] == [BASE, *labels]
    assert single_values(arms) == said
    if "steps=20" in overrides:
        assert {arm.config.train.steps for arm in arms} == {20}


def test_controls_are_shown_in_a_study_and_not_compared() -> None:
    def with_control(result: ArmResult) -> ArmResult:
        cells = {}
        for seed, cell in result.scored.items():
            wrong = {"skill_shuffled": replace(answers(0.5, seed), control=True)}
            cells[seed] = Scored({name: {**scores, **wrong} for name, scores in cell.columns.items()}, cell.facts)
        return ArmResult(result.arm, cells, result.stopped)

    about = {"kind": "ablate", "recipe": "t_jepa", "out": "x", "seeds": [0, 1, 2], "jobs": 1}
    found = summary([with_control(result) for result in three_arms()], about, Scored({}, {}))
    assert "skill_shuffled" not in {row["measure"] for row in found["differences"]}
    assert "skill_shuffled" not in found["headlines"]
    assert found["controls"] == ["skill_shuffled"]
    assert "skill_shuffled (control)" in shown(found)


def arms_of_two() -> list[Arm]:
    return ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,0.5"])


def test_cells_come_seed_by_seed_in_folders_of_their_own(tmp_path: Path) -> None:
    cells = cells_of(arms_of_two(), 2, tmp_path)
    assert [(cell.arm.label, cell.seed) for cell in cells] == [
        ("base", 0), ("mask.ratio=0.3", 0), ("base", 1), ("mask.ratio=0.3", 1)]  # fmt: skip
    assert len({cell.path for cell in cells}) == 4
    with pytest.raises(UserError, match="at least 1 seed"):
        cells_of(arms_of_two(), 0, tmp_path)
    with pytest.raises(UserError, match=r"train\.devices=1"):
        cells_of(ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,0.4", "train.devices=2"]), 1, tmp_path)


def test_folder_names_are_readable_and_differ_where_labels_differ() -> None:
    labels = ["base", "mask.ratio=0.3", "a b", "a/b", "x" * 200, "x" * 201]
    names = [folder_name(label) for label in labels]
    assert names[:2] == labels[:2]
    assert len(set(names)) == len(labels)
    assert not any("/" in name or len(name) > 100 for name in names)


def test_a_prepared_folder_is_kept_and_another_configuration_in_it_refused(tmp_path: Path) -> None:
    cells = cells_of(arms_of_two(), 2, tmp_path)
    prepare(cells)
    before = [cell.folder.config_file.read_bytes() for cell in cells]
    prepare(cells)
    assert [cell.folder.config_file.read_bytes() for cell in cells] == before
    assert [RunDir.open(cell.path).recipe_and_values()[1]["train"]["seed"] for cell in cells] == [0, 0, 1, 1]
    other = ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,0.5", "train.steps=7"])
    with pytest.raises(UserError, match=r"train.steps=1150 there, 7 here.*another --out"):
        prepare(cells_of(other, 1, tmp_path))


def test_a_folder_that_does_not_know_a_newer_setting_is_kept(tmp_path: Path) -> None:
    cell = cells_of(arms_of_two(), 1, tmp_path)[0]
    prepare([cell])
    values = yaml.safe_load(cell.folder.config_file.read_text())
    del values["train"]["predictor_only_fraction"]
    cell.folder.config_file.write_text(yaml.safe_dump(values))
    cell.folder.seal()
    prepare([cell])
    other = ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,0.5", "train.predictor_only_fraction=0.2"])
    with pytest.raises(UserError, match=r"train.predictor_only_fraction=null there, 0.2 here"):
        prepare(cells_of(other, 1, tmp_path))


def test_a_cell_that_stopped_is_finished(tmp_path: Path) -> None:
    cell = cells_of(arms_of_two(), 1, tmp_path)[0]
    prepare([cell])
    assert not cell.finished
    write_json(stop_file(cell.path), {"error": "non-finite gradient"})
    assert cell.finished
    assert cell.stopped == "non-finite gradient"


def test_processes_fit_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def asked(*threads: int, jobs: int | None = None) -> int:
        some = [
            ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,0.5", f"train.threads={count}"]) for count in threads
        ]
        return processes_for([cell for arms in some for cell in cells_of(arms, 3, tmp_path)], jobs)

    assert asked(1) == 6  # no more than there are cells
    assert asked(4) == 2
    assert asked(2, 4) == 4  # the most modest decides
    assert asked(0) == 1  # torch takes all cores for one
    assert asked(0, jobs=3) == 3
    with pytest.raises(UserError, match="--jobs"):
        asked(1, jobs=0)


@pytest.mark.parametrize(
    ("wanted", "jobs", "given"),
    [(0, 2, "4"), (1, 2, "1"), (6, 2, "4"), (6, 1, "6"), (2, 20, "1")],
    ids=["its share", "fewer", "no more than its share", "alone", "at least one"],
)
def test_a_cell_gets_no_more_threads_than_its_share_of_the_cores(
    wanted: int, jobs: int, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,0.5", f"train.threads={wanted}"])
    cell = cells_of(arms, 1, tmp_path)[0]
    cell.path.mkdir(parents=True)
    started: list[dict[str, str]] = []
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("subprocess.Popen", lambda *_, env, **__: started.append(env))
    running.start_worker(cell, jobs)
    assert started[0]["OMP_NUM_THREADS"] == given


def test_sigterm_stops_the_processes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = ablation_arms("t_jepa", None, None, ["mask.ratio=0.3,0.5"])
    cells, started, handler = cells_of(arms, 1, tmp_path), [], signal.getsignal(signal.SIGTERM)
    prepare(cells)

    def start(cell: Cell, jobs: int) -> subprocess.Popen:
        started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1]

    class Terminates:
        def on_step(self, cell: Cell, step: int) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        def on_end(self, cell: Cell) -> None:
            raise AssertionError("none has ended")

    monkeypatch.setattr(running, "start_worker", start)
    monkeypatch.setattr(running, "GRACE_S", 3)  # in full where SIGINT is ignored, as in jobs behind "&"
    with pytest.raises(KeyboardInterrupt):
        running.run_cells(cells, 2, Terminates())
    assert len(started) == 2
    assert all(process.poll() in (-signal.SIGINT, -signal.SIGKILL) for process in started)
    assert signal.getsignal(signal.SIGTERM) is handler


def answers(rate: float, draw: int, count: int = 400) -> Score:
    return Score((torch.rand(count, generator=generator_for(0, "test", draw)).numpy() < rate).astype(float), 0.1)


def scored(rate: float, seed: int, skill: float | None = 0.3, draws: int = 0) -> Scored:
    run = {name: answers(rate, 10 * seed + number + draws) for number, name in enumerate(MEASURES)}
    start = {name: answers(0.1, 1000 + number) for number, name in enumerate(MEASURES)}
    facts: dict[str, Any] = {"skill": skill, "verdict": "healthy", "kind": None, "train_s": 2.0, "tokens": 1e4}
    return Scored({"run": run, "init": start}, facts | {"flops": 1e9 * (1 + rate), "steps": 9})


MEASURES = ("triplets", "topic_knn", "topic_logistic", "agent_knn", "agent_logistic")


def three_arms() -> list[ArmResult]:
    base, other = arms_of_two()
    third = Arm("mask.ratio=0.9", "t_jepa", other.config)
    return [
        ArmResult(base, {s: scored(0.5, s, 0.3 + 0.01 * s) for s in range(3)}, {}),
        ArmResult(other, {s: scored(0.7, s, 0.2 + 0.01 * s, draws=500) for s in range(3)}, {}),
        ArmResult(third, {s: scored(0.5, s, 0.3, draws=700) for s in range(2)}, {2: "non-finite gradient"}),
    ]


def test_probes_are_averaged_item_by_item_and_the_rest_stands_alone() -> None:
    assert headlines(MEASURES) == {
        "triplets": ["triplets"],
        "mean knn": ["topic_knn", "agent_knn"],
        "mean logistic": ["topic_logistic", "agent_logistic"],
    }
    assert headlines(["topic_knn", "topic_logistic"]) == {
        "topic_knn": ["topic_knn"],
        "topic_logistic": ["topic_logistic"],
    }
    scores = scored(0.5, 0).columns["run"]
    mean = with_headlines(scores)["mean knn"]
    np.testing.assert_allclose(mean.items, (scores["topic_knn"].items + scores["agent_knn"].items) / 2)
    assert "mean knn" not in with_headlines({"a_knn": answers(0.5, 1), "b_knn": answers(0.5, 2, count=300)})


def test_a_real_difference_is_called_one_and_none_is_not() -> None:
    rows = {(row.arm, row.measure): row for row in compared(three_arms())}
    row = rows["mask.ratio=0.3", "mean knn"]
    assert row.headline
    assert row.found.value == pytest.approx(0.2, abs=0.04)
    assert row.found.interval is not None
    assert row.found.interval[0] > 0.1
    assert row.p_items_holm is not None
    assert row.p_items_holm < 0.01
    assert row.found.p_seeds == 0.25
    same = rows["mask.ratio=0.9", "mean knn"]
    assert same.found.seeds == 2  # the third one stopped
    assert same.found.interval is not None
    assert same.found.interval[0] < 0 < same.found.interval[1]
    skill = rows["mask.ratio=0.3", "skill"]
    assert skill.found.value == pytest.approx(-0.1)
    assert skill.p_items_holm is None
    assert not rows["mask.ratio=0.3", "topic_knn"].headline


def test_skill_is_not_compared_between_recipes() -> None:
    base, other, _ = three_arms()
    foreign = ArmResult(Arm("baselines/mlm", "baselines/mlm", other.arm.config), other.scored, {})
    assert "skill" not in {row.measure for row in compared([base, foreign])}


def test_the_correction_counts_every_comparison_of_its_group() -> None:
    rows = [row for row in compared(three_arms()) if row.headline]
    assert len(rows) == 2 * 4  # two arms; skill, triplets, two means
    smallest = min(row.found.p_items for row in rows if row.found.p_items is not None)
    corrected = min(row.p_items_holm for row in rows if row.p_items_holm is not None)
    assert corrected == pytest.approx(smallest * 6)


def study() -> dict[str, Any]:
    about = {"kind": "ablate", "recipe": "t_jepa", "grid": False, "out": "runs/x", "seeds": [0, 1, 2], "jobs": 2}
    baselines = Scored({"tfidf": {name: answers(0.6, 77) for name in MEASURES}}, {})
    return summary(three_arms(), about, baselines)


def test_the_summary_has_every_arm_with_its_cost() -> None:
    found = study()
    assert found["headlines"] == ["skill", "triplets", "mean knn", "mean logistic"]
    assert [arm["label"] for arm in found["arms"]] == ["base", "mask.ratio=0.3", "mask.ratio=0.9"]
    assert found["arms"][1]["skill"] == pytest.approx(0.21)
    assert found["arms"][1]["flops"] == pytest.approx(1.7e9)
    assert found["arms"][2]["verdict"] == "2 healthy, 1 stopped"
    assert found["arms"][0]["measures"]["triplets"]["init"] < 0.2
    assert found["baselines"]["tfidf"]["mean knn"] == pytest.approx(0.6, abs=0.1)


def test_an_arm_without_results_is_shown_and_not_compared(tmp_path: Path) -> None:
    base, other, third = three_arms()
    dead = ArmResult(third.arm, {}, {0: "non-finite", 1: "non-finite", 2: "non-finite"})
    about = {"kind": "ablate", "recipe": "t_jepa", "out": "x", "seeds": [0, 1, 2], "jobs": 1}
    found = summary([base, other, dead], about, Scored({}, {}))
    assert {row["arm"] for row in found["differences"]} == {"mask.ratio=0.3"}
    assert found["arms"][2]["verdict"] == "stopped"
    assert "mask.ratio=0.9" in shown(found)
    plot.draw(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def shown(found: dict[str, Any], width: int = 140) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for one in table.tables(found):
        console.print(one)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 140])
def test_the_tables_hide_no_number(width: int) -> None:
    text = shown(study(), width)
    for word in ("triplets", "mean knn", "0.25", "3/3", "tfidf", "chance", "better", "topic_logistic"):
        assert word in text, word
    assert "…" not in text


@pytest.mark.parametrize(
    ("interval", "items", "seeds", "word"),
    [
        ((0.1, 0.2), 0.01, 0.25, "better"),
        ((-0.2, -0.1), 0.01, 0.25, "worse"),
        ((-0.1, 0.2), 0.01, 0.25, "unclear"),
        ((0.1, 0.2), 0.2, 0.25, "unclear"),
        ((0.1, 0.2), None, 0.25, "unclear"),
        ((0.1, 0.2), None, 0.03, "better"),
        (None, None, 1.0, "unclear"),
    ],
)
def test_a_word_needs_an_interval_and_a_p_value(interval: Any, items: Any, seeds: float, word: str) -> None:
    value = sum(interval) if interval else 0.1
    row = {"value": value, "interval": interval, "p_items_holm": items, "p_seeds_holm": seeds}
    assert table.verdict(row) == word


def test_amounts_are_readable() -> None:
    assert [table.amount(value) for value in (None, 12, 1234567, 2.5e12)] == ["-", "12", "1.23 M", "2.5 T"]


def test_the_csv_has_one_row_a_cell(tmp_path: Path) -> None:
    results.write(tmp_path, three_arms(), study())
    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 9
    assert rows[0].startswith("arm,recipe,seed,skill,verdict")
    assert "mean knn" in rows[0]
    assert sum("stopped" in row for row in rows) == 1


def test_a_cell_knows_its_steps(tmp_path: Path) -> None:
    cell = Cell(arms_of_two()[0], 0, tmp_path)
    assert (cell.steps, cell.done_steps) == (1150, 0)


def asked(score: Score, digest: str) -> Score:
    return Score(score.items, score.chance, score.gold, digest)


def test_measures_of_other_test_items_are_not_compared() -> None:
    """Equal numbers of test items do not make them the same: each arm here was tested on a corpus of its own."""
    arms = three_arms()
    for result, corpus in zip(arms, ("a", "a", "b"), strict=True):
        for one in result.scored.values():
            one.columns["run"].update({name: asked(found, corpus) for name, found in one.columns["run"].items()})
    rows = compared(arms)
    assert {row.measure for row in rows} == {"skill"}
    found = summary(arms, {"seeds": [0]}, Scored({}, {}))
    assert set(MEASURES) <= set(found["asked_apart"])
    assert "different test items: " in table.caption(found)
    assert {row.measure for row in compared(arms[:2])} >= {*MEASURES, "skill"}


def test_what_a_cell_knows_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    plain = Score(np.array([1.0, 0.0, 1.0]), 0.3, asked="a")
    ranked = Score(np.array([0.1, 0.2, 0.4]), 0.0, gold=np.array([1.0, 3.0, 2.0]))
    grouped = Score(np.array([1.0, 0.0, 1.0]), 0.5, groups=np.array([0, 0, 4]))
    kept = Scored({"run": {"plain": plain, "ranked": ranked}, "init": {"grouped": grouped}}, {"skill": 0.2})
    scoring.write(tmp_path / "study.json", kept)
    back = scoring.read(tmp_path / "study.json")
    assert back.facts == kept.facts
    for column, scores in kept.columns.items():
        assert list(back.columns[column]) == list(scores)
        for name, score in scores.items():
            again = back.columns[column][name]
            assert (again.chance, again.asked) == (score.chance, score.asked)
            for mine, theirs in ((again.items, score.items), (again.gold, score.gold), (again.groups, score.groups)):
                assert np.array_equal(mine, theirs) if theirs is not None else mine is None
