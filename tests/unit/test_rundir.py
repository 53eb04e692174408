"""Run folders: made once, opened by what is in them, and whole after any crash."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from openjepa.core.config import TrainConfig
from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json, read_jsonl
from openjepa.core.manifest import MANIFEST
from openjepa.core.rundir import RunDir, append_jsonl, default_folder, write_csv, write_json


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "runs" / "first", "t_jepa", TrainConfig(steps=7))


def log(run: RunDir, steps: range) -> None:
    for step in steps:
        append_jsonl(run.metrics, {"step": step, "loss": 1 / (step + 1)})
        append_jsonl(run.health, {"step": step, "status": "healthy"})


def test_a_run_knows_its_recipe_and_settings(run: RunDir) -> None:
    recipe, values = RunDir.open(run.path).recipe_and_values()
    assert recipe == "t_jepa"
    assert TrainConfig.load(values) == TrainConfig(steps=7)
    stamp = read_json(run.path / "env.json")
    assert stamp["versions"]["torch"]
    assert stamp["python"]
    assert all(folder.is_dir() for folder in (run.checkpoints, run.assets, run.evals))


def test_a_begun_run_is_never_overwritten(run: RunDir) -> None:
    log(run, range(1))
    with pytest.raises(UserError, match="already holds a run; resume it with --resume"):
        RunDir.create(run.path, "t_jepa", TrainConfig())
    run.metrics.unlink()
    (run.checkpoints / "step-000001").mkdir()
    with pytest.raises(UserError, match="already holds a run"):
        RunDir.create(run.path, "t_jepa", TrainConfig())


def test_a_start_that_failed_is_started_over(run: RunDir) -> None:
    (run.assets / "tokenizer.json").write_text("of another configuration")
    run.metrics.write_text("")
    again = RunDir.create(run.path, "other", TrainConfig(steps=9))
    assert again.recipe_and_values()[0] == "other"
    assert list(again.assets.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("")])
def test_what_is_no_run_is_said_to_be_none(make, tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(UserError, match="is not a run folder"):
        RunDir.open(tmp_path / "x")


def test_a_run_without_a_recipe_is_named(run: RunDir) -> None:
    run.config_file.write_text("steps: 3\n")
    run.seal()
    with pytest.raises(UserError, match=r"config\.yaml names no recipe"):
        run.recipe_and_values()


def test_forget_after_keeps_each_step_once(run: RunDir) -> None:
    log(run, range(6))
    write_csv(run.metrics_csv, list(read_jsonl(run.metrics)))
    run.metrics.write_text(run.metrics.read_text() + '{"step": 6, "lo')  # killed in the middle of a line
    run.forget_after(3)
    assert [row["step"] for row in read_jsonl(run.metrics)] == [0, 1, 2, 3]
    assert [row["step"] for row in read_jsonl(run.health)] == [0, 1, 2, 3]
    with run.metrics_csv.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"]
    log(run, range(4, 6))
    assert [row["step"] for row in read_jsonl(run.metrics)] == [0, 1, 2, 3, 4, 5]
    assert [path for path in run.path.iterdir() if path.name.endswith(".tmp")] == []


def test_forget_after_copes_with_missing_logs(run: RunDir) -> None:
    run.forget_after(-1)
    assert list(read_jsonl(run.metrics)) == []
    assert not run.has_begun()


def test_jsonl_keeps_numbers_and_skips_a_cut_off_last_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    append_jsonl(file, {"step": 1, "loss": 0.1 + 0.2})
    append_jsonl(file, {"step": 2, "text": "größer"})
    with file.open("a") as out:
        out.write('{"step": 3, "lo')
    assert list(read_jsonl(file)) == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "text": "größer"}]
    whole = file.read_text()
    file.write_text(whole.replace('"loss"', '\x00loss"'))
    assert list(read_jsonl(file)) == [{"step": 2, "text": "größer"}], "lines behind a damaged one are read"
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises((TypeError, ValueError)):
        write_json(file, {"a": {1, 2}})
    assert json.loads(file.read_text()) == {"a": 1}


def test_csv_has_a_column_for_every_key(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"step": 1}, {"step": 2, "late": 0.5}])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"step": "1", "late": ""}, {"step": "2", "late": "0.5"}]


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260101-120000")
    made = []
    for _ in range(3):
        made.append(default_folder("t_jepa"))
        made[-1].mkdir(parents=True)
    assert [folder.name for folder in made] == [f"t_jepa-20260101-120000{end}" for end in ("", "-2", "-3")]


def damaged_config(run: RunDir) -> Path:
    text = run.config_file.read_text()
    run.config_file.write_text(text[: len(text) // 2])
    return run.config_file


def test_a_config_cut_in_half_is_refused_and_not_filled_with_defaults(run: RunDir) -> None:
    file = damaged_config(run)
    with pytest.raises(UserError, match=f"{file} is damaged") as refused:
        run.recipe_and_values()
    assert "\n" not in str(refused.value)


def test_a_run_without_a_manifest_is_refused(run: RunDir) -> None:
    (run.path / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        run.recipe_and_values()
    (run.path / MANIFEST).write_text("[1")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        run.recipe_and_values()


def test_an_asset_that_is_not_what_was_written_is_refused(run: RunDir) -> None:
    (run.assets / "encoder").mkdir()
    asset = run.assets / "encoder" / "tokenizer.json"
    asset.write_text("abc")
    run.seal()
    run.require_whole()
    asset.write_text("abd")
    with pytest.raises(UserError, match=f"{asset} is damaged"):
        run.require_whole()
    asset.unlink()
    with pytest.raises(UserError, match=f"{asset} is gone"):
        run.require_whole()


def test_a_crash_while_the_config_is_replaced_leaves_one_that_is_whole(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its three renames is the last to happen."""
    replace = os.replace
    for done in range(3):
        left = done

        def rename(old: Path, new: Path) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            replace(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", rename)
            with pytest.raises(KeyboardInterrupt):
                run.write_config(TrainConfig(steps=20 + done), "t_jepa")
        _, values = run.recipe_and_values()
        assert values["steps"] == (7 if done < 2 else 22)
    run.write_config(TrainConfig(steps=30), "t_jepa")
    assert run.recipe_and_values()[1]["steps"] == 30
    run.config_file.write_text("recipe: t_jepa\nsteps: 22\n")
    with pytest.raises(UserError, match="is damaged"):
        run.recipe_and_values()


def test_a_damaged_json_file_is_named(run: RunDir) -> None:
    run.summary.write_text('{"steps": 1')
    with pytest.raises(UserError, match=r"summary\.json is damaged"):
        read_json(run.summary)
