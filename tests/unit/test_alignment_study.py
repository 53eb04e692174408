"""The alignment study: two runs that differ in lambda alone, curves from their health logs, a figure and a verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openjepa import api
from openjepa.cli import main
from openjepa.core.errors import UserError
from openjepa.studies import alignment
from tests.tiny import NANO

SETTINGS = [*NANO, "train.steps=4", "train.health_every=2", "train.health_samples=1", "train.batch_size=8"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("study") / "runs"
    return alignment.study("nano_jepa", out=out, overrides=[*SETTINGS, "weight=0.5"], progress=False)


def test_the_two_runs_differ_in_lambda_alone(study: dict) -> None:
    runs = [api.load(run["run"]) for run in study["runs"]]
    assert [run["label"] for run in study["runs"]] == ["lambda = 0", "lambda = 0.5"]
    assert [run.config.weight for run in runs] == [0, 0.5]
    assert runs[0].config.model_copy(update={"weight": 0.5}) == runs[1].config


def test_curves_are_those_of_the_health_log(study: dict) -> None:
    for run in study["runs"]:
        records = api.load(run["run"]).health()
        assert run["steps"] == [record["step"] for record in records] == [0, 2, 4]
        assert run["own_cosine"] == [record["own_cosine"] for record in records]
        assert all(-1 <= value <= 1 for name in alignment.COSINES for value in run[name])
        assert all(0 < value <= 1 for value in run["mrr"])
        assert 0 < run["top1_chance"] < run["mrr_chance"] < 0.2
    first, second = study["runs"]
    assert first["own_cosine"][0] == second["own_cosine"][0]  # the same start
    assert first["own_cosine"][-1] != second["own_cosine"][-1]


def test_figure_and_table_are_written(study: dict) -> None:
    assert Path(study["figure"]).read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path(study["table"]).read_text()) == study


def test_finished_runs_are_compared_without_training(
    study: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folders = [run["run"] for run in study["runs"]]
    assert main(["align", *folders, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["runs"] == study["runs"]
    assert (tmp_path / "latent_alignment.png").is_file()
    assert main(["align", *folders, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "lambda = 0.5" in shown
    assert "own-shuffled" in shown
    assert "chance" in shown


def test_what_cannot_be_studied_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match="t_jepa has weight=None"):
        alignment.study("t_jepa", out=tmp_path)
    assert main(["align", "nano_jepa", "weight=0"]) == 2
    assert "weight above 0" in capsys.readouterr().err
    assert main(["align", "train.steps=3"]) == 2
    assert "give a recipe" in capsys.readouterr().err


def test_runs_and_settings_do_not_mix(study: dict, capsys: pytest.CaptureFixture) -> None:
    assert main(["align", study["runs"][0]["run"], "train.steps=3"]) == 2
    assert "run folders only" in capsys.readouterr().err


def test_the_study_says_which_training_is_running(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*SETTINGS, "weight=0.5", "train.seed=3", "train.steps=1"]
    alignment.study("nano_jepa", out=tmp_path / "runs", overrides=words)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training ")]
    assert said == [
        "training 1 of 2: without the latent prediction (weight=0), seed 3",
        "training 2 of 2: with the latent prediction (weight=0.5), seed 3",
    ]
