"""Forced collapses are called by their name, the advice can be pasted, and damage done by training is reported."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import openjepa
from openjepa.api import Run
from openjepa.cli import main
from openjepa.core.configure import configure, recipe_of
from openjepa.health.verdict import RULES

GALLERY = sorted((Path(__file__).parents[1] / "collapses").glob("*.yaml"))
KINDS = {rule.kind for rule in RULES}


def test_there_are_seven_collapses_each_named_after_a_kind_that_verdicts_know() -> None:
    assert len(GALLERY) == 7
    assert {file.stem for file in GALLERY} < KINDS


@pytest.mark.slow
@pytest.mark.parametrize("file", GALLERY, ids=lambda file: file.stem)
def test_a_forced_collapse_is_diagnosed_with_its_kind_and_a_command_that_runs(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = openjepa.train(recipe_of(file), config=file, out=tmp_path / "run", progress=False)
    assert main(["diagnose", str(run.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["latest"]["kind"] == file.stem
    assert found["latest"]["status"] != "healthy"
    assert main(["diagnose", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert f"({file.stem})" in shown
    verb, recipe, option, config, *overrides = _suggested(shown)
    assert (verb, option, overrides) == ("train", "--config", found["override"])
    _, cured = configure(recipe, config=config, overrides=overrides)
    assert cured != run.config


def _suggested(shown: str) -> list[str]:
    """The words after `openjepa` in the line that tells what to try."""
    (line,) = [line for line in shown.splitlines() if line.startswith("try: openjepa ")]
    return shlex.split(line.removeprefix("try: openjepa "))


@pytest.mark.slow
def test_eval_says_in_one_line_that_sabotaged_training_hurt_and_fails_if_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = next(file for file in GALLERY if file.stem == "complete")
    words = ["train.lr=10", "train.steps=20", "train.warmup_steps=1", "train.health_every=20"]
    run = openjepa.train(recipe_of(file), config=file, out=tmp_path / "run", overrides=words, progress=False)
    monkeypatch.setattr(Run, "tasks", lambda run: run.experiment.tasks()[1:2])  # of eleven: probes take seconds
    assert main(["eval", str(run.path), "--fail-if-worse"]) == 1
    printed = capsys.readouterr()
    (said,) = [line for line in printed.out.splitlines() if line.startswith("training ")]
    assert said.startswith("training HURT: below its own initialisation on ")
    assert "worse than its own initialisation: " in printed.err
