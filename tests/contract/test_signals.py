"""Asked to stop, a run finishes its step, saves it, says how to go on, and ends with 128 + the signal's number."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openjepa import api
from openjepa.core.errors import StoppedBySignal
from openjepa.core.json_files import read_jsonl
from openjepa.training import checkpoint
from openjepa.training.stopping import SIGNALS
from tests.contract.test_resume import PATIENCE_S, SETTINGS, STEPS, assert_same_run

COMMAND = [sys.executable, "-m", "openjepa", "train"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return api.train("t_jepa", out=tmp_path_factory.mktemp("runs") / "straight", overrides=SETTINGS, progress=False)


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Signals as in a terminal: started in the background or by nohup, this process was told to ignore some."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class SendAt:
    """A hook that sends this process a signal at a step."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def __call__(self, progress, output, stats) -> None:
        if progress.step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_a_signal_stops_after_the_step_and_costs_nothing(number: int, straight: api.Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = signal.getsignal(number)
    with pytest.raises(StoppedBySignal, match=f"openjepa train --resume {run}") as stopped:
        api.train("t_jepa", out=run, overrides=SETTINGS, hooks=[SendAt(number, 9)], progress=False)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert checkpoint.newest_step(run / "checkpoints") == 10, "the step that the signal came in, and no other"
    api.train("", out=run, resume=True, progress=False)
    assert_same_run(run, straight.path)


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    def twice(progress, output, stats) -> None:
        if progress.step == 9:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="interrupted; resume with") as left:
        api.train("t_jepa", out=tmp_path / "run", overrides=SETTINGS, hooks=[twice], progress=False)
    assert not isinstance(left.value, StoppedBySignal)
    assert checkpoint.newest_step(tmp_path / "run" / "checkpoints") == 8


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = api.train(
            "t_jepa", out=tmp_path / "run", overrides=SETTINGS, hooks=[SendAt(signal.SIGHUP, 9)], progress=False
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.summary()["steps"] == STEPS


def test_checkpoints_by_the_clock_change_nothing_else(straight: api.Run, tmp_path: Path) -> None:
    every_step = ("train.checkpoint_seconds=1e-9", "train.checkpoint_every=0", "train.keep_checkpoints=100")
    run = api.train("t_jepa", out=tmp_path / "run", overrides=[*SETTINGS, *every_step], progress=False)
    written = checkpoint.finished(run.path / "checkpoints")
    assert [checkpoint.step_of(path) for path in written] == [*range(1, STEPS + 1)]
    assert_same_run(run.path, straight.path)
    for path in written[10:]:
        shutil.rmtree(path)
    api.train("", out=run.path, resume=True, progress=False)
    assert_same_run(run.path, straight.path)


def wait_for_steps(run: Path, process: subprocess.Popen) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not list(read_jsonl(run / "metrics.jsonl")):
        assert process.poll() is None, "training ended before its first log line"
        assert time.monotonic() < give_up, "no log line appeared"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [(), ("train.workers=2",), ("train.devices=2",)], ids=lambda s: "".join(s) or "one"
)
def test_all_processes_of_a_run_that_get_sigterm_end_together(settings: tuple[str, ...], tmp_path: Path) -> None:
    """As SLURM sends it: to every process of the job, the data loading ones and the other ranks too."""
    run = tmp_path / "run"
    long = ("train.steps=100000", "train.health_every=100000", "train.checkpoint_every=0")
    command = [*COMMAND, "t_jepa", *SETTINGS, *long, *settings, "--out", str(run), "--no-eval"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_steps(run, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGTERM, said
    (path,) = checkpoint.finished(run / "checkpoints")
    assert f"stopped after step {checkpoint.step_of(path)}, which is saved; resume with" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert said.count("SIGTERM: the step is finished") == 1
