"""One training at a time in a run folder, and as many processes as the settings say."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openjepa import api
from openjepa.core.errors import UserError
from openjepa.training.lock import LOCK, training_lock
from openjepa.training.loop import make_fabric
from tests.tiny import TINY

SPAWN = multiprocessing.get_context("spawn")


def hold(folder: Path, pipe: Any) -> None:
    with training_lock(folder):
        pipe.send("held")
        pipe.poll(None)  # until the other end says something, or is closed


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Any]:
    """Another process that trains into tmp_path/run; `pipe` ends it."""
    pipe, other = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(tmp_path / "run", other))
    process.start()
    other.close()
    assert pipe.poll(60)
    assert pipe.recv() == "held"
    process.pipe = pipe
    yield process
    pipe.close()
    process.join()


def test_a_second_training_is_refused_and_told_who_has_the_folder(holder: Any, tmp_path: Path) -> None:
    named = rf"is being trained by process {holder.pid} on {socket.gethostname()} since"
    with pytest.raises(UserError, match=named):
        api.train("t_jepa", out=tmp_path / "run", overrides=[*TINY, "train.steps=1"], progress=False)
    assert [file.name for file in (tmp_path / "run").iterdir()] == [LOCK], "nothing is written by the refused one"
    holder.pipe.send("end")
    holder.join()
    with training_lock(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()


def test_the_lock_of_a_killed_process_is_taken_over_and_said(
    holder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    leftover = tmp_path / "run" / ".summary.json.7.tmp"
    leftover.write_text("{")
    with training_lock(tmp_path / "run"):
        said = capsys.readouterr().err
    assert f"process {holder.pid} on {socket.gethostname()}" in said
    assert "taken over" in said
    assert not leftover.exists()
    with training_lock(tmp_path / "run"):
        assert capsys.readouterr().err == "", "one that ended by itself is not mentioned"


def test_it_is_held_within_one_process_too_and_released_by_an_error(tmp_path: Path) -> None:
    with training_lock(tmp_path), pytest.raises(UserError, match="this very process"), training_lock(tmp_path / "."):
        pass

    def fail() -> None:
        with training_lock(tmp_path):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with training_lock(tmp_path):
        pass


def test_of_two_resumes_the_second_is_refused_and_so_is_a_move(tmp_path: Path) -> None:
    run = api.train("t_jepa", out=tmp_path / "run", overrides=[*TINY, "train.steps=2"], progress=False)
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file() and file.name != LOCK}
    with training_lock(run.path):
        for refused in (
            lambda: api.train("", out=run.path, resume=True, progress=False),
            lambda: api.relocate(run.path, ["data.source=/elsewhere"]),
        ):
            with pytest.raises(UserError, match="is being trained by"):
                refused()
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize(
    ("launcher", "variables"),
    [
        ("torchrun", {"WORLD_SIZE": "2", "RANK": "0"}),
        ("srun", {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}),
        ("mpirun", {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}),
    ],
)
def test_processes_of_a_launcher_are_counted(
    launcher: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"{launcher} has started 2 processes, but train\.devices=1"):
        api.train("t_jepa", out=tmp_path / "run", overrides=TINY, progress=False)
    assert not (tmp_path / "run").exists()


def test_one_process_of_a_launcher_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from openjepa.core.config import TrainConfig

    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert make_fabric(TrainConfig(accelerator="cpu")).world_size == 1
    monkeypatch.delenv("SLURM_PROCID")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")  # of a batch script, which is in no step
    assert make_fabric(TrainConfig(accelerator="cpu")).world_size == 1
