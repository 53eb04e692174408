"""A run that was killed and resumed is the run that was not: the same weights bit for bit, each log line once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from openjepa import api
from openjepa.cli import main
from openjepa.core.errors import UserError
from openjepa.core.json_files import read_jsonl
from openjepa.training import checkpoint
from tests.tiny import TINY

STEPS, EVERY = 40, 8
SETTINGS = (
    *TINY,
    f"train.steps={STEPS}",
    "train.warmup_steps=5",
    f"train.checkpoint_every={EVERY}",
    f"train.health_every={EVERY}",
    "train.health_samples=1",
    "train.log_every=3",  # not a divisor of EVERY: a window of the log is cut by the kill
    "train.accumulate=2",
    "encoder.dropout=0.1",
    "train.batch_tokens=600",
    "encoder.max_len=64",
    "regularizer.name=sigreg",
)
PATIENCE_S = 120


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return api.train("t_jepa", out=tmp_path_factory.mktemp("runs") / "straight", overrides=SETTINGS, progress=False)


def train_and_kill(out: Path) -> None:
    """Start the command line, and SIGKILL it as soon as its first checkpoint is there."""
    command = [sys.executable, "-m", "openjepa", "train", "t_jepa", *SETTINGS, "--out", str(out), "--no-eval"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process: sums are split alike
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + PATIENCE_S
    try:
        while not checkpoint.finished(out / "checkpoints"):
            assert process.poll() is None, "training ended before its first checkpoint"
            assert time.monotonic() < give_up, "no checkpoint appeared"
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.newest(run / "checkpoints") / checkpoint.WEIGHTS)


def assert_same_run(resumed: Path, straight: Path) -> None:
    mine, theirs = weights(resumed), weights(straight)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    for log in ("metrics.jsonl", "health.jsonl"):
        rows, expected = (list(read_jsonl(run / log)) for run in (resumed, straight))
        assert [row["step"] for row in rows] == [row["step"] for row in expected]
    losses = [[row["loss"] for row in read_jsonl(run / "metrics.jsonl")] for run in (resumed, straight)]
    assert losses[0] == losses[1]


def test_a_resume_says_what_it_would_not_heed(tmp_path: Path) -> None:
    run = api.train("t_jepa", out=tmp_path / "run", overrides=[*SETTINGS, "train.steps=2"], progress=False)
    with pytest.raises(UserError, match="is a run of t_jepa, not of i_jepa"):
        api.train("i_jepa", out=run.path, resume=True, progress=False)
    with pytest.raises(UserError, match="leave preset and config out"):
        api.train("t_jepa", preset="tiny", out=run.path, resume=True, progress=False)
    assert api.train("t_jepa", out=run.path, resume=True, progress=False).path == run.path


@pytest.mark.parametrize(
    "settings",
    [
        ("train.optimizer=sgd", "train.optimizer_args.momentum=0.9"),
        ("train.optimizer=muon", "train.final_weight_decay=0.4"),
        ("train.optimizer=lars", "train.lr=0.5"),
        ("train.optimizer=torch.optim:NAdam",),
    ],
    ids=lambda settings: settings[0],
)
def test_every_optimizer_resumes_bit_for_bit(settings: tuple[str, ...], tmp_path: Path) -> None:
    few = ("train.steps=10", "train.checkpoint_every=4", "train.health_every=10", *settings)
    run = api.train("t_jepa", out=tmp_path / "run", overrides=[*SETTINGS, *few], progress=False)
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    shutil.rmtree(checkpoint.newest(copy / "checkpoints"))  # of the last step; the one before is of step 8
    api.train("", out=copy, resume=True, progress=False)
    assert checkpoint.newest_step(copy / "checkpoints") == 10
    assert_same_run(copy, run.path)


@pytest.mark.slow
def test_kill_9_and_resume(straight: api.Run, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    killed = tmp_path / "killed"
    train_and_kill(killed)
    assert not (killed / "summary.json").exists()
    assert checkpoint.newest_step(killed / "checkpoints") < STEPS
    (killed / "checkpoints" / ".step-000099.tmp").mkdir()  # as if it had been killed while writing one
    assert main(["train", "--resume", str(killed), "--no-eval"]) == 0
    assert str(killed) in capfd.readouterr().out
    assert_same_run(killed, straight.path)
    assert [row["step"] for row in read_jsonl(killed / "metrics.jsonl")] == [*range(3, STEPS, 3), STEPS]
    assert api.load(killed).summary()["loss"] == straight.summary()["loss"]


def test_every_checkpoint_can_be_resumed_from(straight: api.Run, tmp_path: Path) -> None:
    """Also the one before last, whatever the logs say by then; and a finished run stays as it is."""
    run = tmp_path / "copy"
    shutil.copytree(straight.path, run)
    kept = checkpoint.finished(run / "checkpoints")
    assert len(kept) >= 2
    shutil.rmtree(kept[-1])
    api.train("", out=run, resume=True, progress=False)
    assert_same_run(run, straight.path)
    api.train("", out=run, resume=True, progress=False)
    assert_same_run(run, straight.path)


def test_a_run_that_stopped_before_its_first_checkpoint_starts_over(straight: api.Run, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(straight.path, run)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    api.train("", out=run, resume=True, progress=False)
    assert_same_run(run, straight.path)


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(
    straight: api.Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(straight.path, run)
    before, newest = checkpoint.finished(run / "checkpoints")[-2:]
    state = newest / checkpoint.STATE
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 4
    state.write_bytes(data)
    api.train("", out=run, resume=True, progress=False)
    assert f"{state} is damaged" in (said := capsys.readouterr().err)
    assert f"{before} is used instead of {newest}" in said
    assert_same_run(run, straight.path)


@pytest.mark.parametrize("file", ["config.yaml", "assets/tokenizer.json"])
def test_a_damaged_config_or_tokenizer_is_refused_by_what_reads_it(
    straight: api.Run, file: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(straight.path, run)
    damaged = run / file
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    for command in (["train", "--resume", str(run)], ["similar", str(run), "one text", "another"]):
        assert main(command) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert f"{damaged} is damaged" in said[0]
