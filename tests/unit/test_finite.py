"""No update from a non-finite gradient, on the CPU at once and on a GPU without waiting for it in every step."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from openjepa import api
from openjepa.cli import main
from openjepa.core.errors import TrainingStopped, UserError
from openjepa.core.json_files import read_json, read_jsonl
from openjepa.data.loading.loader import train_batches
from openjepa.recipes.t_jepa import Config
from openjepa.training import checkpoint, loop
from openjepa.training.finite import FiniteGuard
from tests.fake_device import FakeDevice
from tests.tiny import TINY

CPU = torch.device("cpu")


def step(guard: FiniteGuard, model: nn.Linear, optimizer: torch.optim.Optimizer, number: int, value: float) -> None:
    optimizer.zero_grad()
    (model(torch.ones(1, 3)).sum() * value).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    guard.check(norm, model, number)
    optimizer.step()


def test_on_the_cpu_it_stops_at_once_and_names_the_parameter() -> None:
    model = nn.Linear(3, 2)
    before, optimizer = model.weight.detach().clone(), torch.optim.AdamW(model.parameters())
    with pytest.raises(TrainingStopped, match=r"at step 5, in weight first; it was not applied"):
        step(FiniteGuard(CPU), model, optimizer, 5, math.nan)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_deferred_it_applies_nothing_and_tells_the_first_such_step_later(value: float) -> None:
    model = nn.Linear(3, 2)
    guard, optimizer = FiniteGuard(CPU, deferred=True), torch.optim.SGD(model.parameters(), lr=0.1)
    step(guard, model, optimizer, 0, 1.0)
    guard.require()
    before = model.weight.detach().clone()
    step(guard, model, optimizer, 1, value)
    step(guard, model, optimizer, 2, value)
    assert torch.equal(model.weight, before)
    with pytest.raises(TrainingStopped, match="at step 1; it was not applied"):
        guard.require()


def test_deferred_it_changes_no_finite_step() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    for model, deferred in ((first, False), (second, True)):
        guard, optimizer = FiniteGuard(CPU, deferred), torch.optim.AdamW(model.parameters())
        for number in range(3):
            step(guard, model, optimizer, number, 1.0 + number)
        guard.require()
    assert torch.equal(first.weight, second.weight)


def test_it_waits_for_no_device_until_it_is_read() -> None:
    model = nn.Linear(3, 2)
    with FakeDevice.on() as device:
        moved = device.module(model)
        for parameter in moved.parameters():
            parameter.grad = torch.empty_like(parameter)
        guard = FiniteGuard(parameter.device)
        assert guard.deferred
        guard.check(parameter.grad.norm(), moved, 3)  # would raise if it asked for a value


def test_a_run_stops_at_the_next_log_line_and_keeps_no_checkpoint_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: step 3 is made with weights that lack an update, and nothing of it stays."""
    guards: list[FiniteGuard] = []

    class Deferred(FiniteGuard):
        def __init__(self, device: torch.device) -> None:
            super().__init__(device, deferred=True)
            guards.append(self)

        def check(self, norm: torch.Tensor, method: nn.Module, step: int) -> None:
            super().check(norm * math.nan if step == 2 else norm, method, step)

    monkeypatch.setattr(loop, "FiniteGuard", Deferred)
    settings = ("train.steps=10", "train.log_every=5", "train.checkpoint_every=2", "train.warmup_steps=1")
    with pytest.raises(TrainingStopped, match="non-finite gradient at step 2"):
        api.train("t_jepa", out=tmp_path / "run", overrides=[*TINY, *settings], progress=False)
    assert len(guards) == 1
    kept = [path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")]
    assert kept == ["step-000002"]
    (record,) = read_jsonl(tmp_path / "run" / "nonfinite.jsonl")
    assert (record["step"], record["rank"]) == (2, 0)
    assert [len(batch["keys"]) for batch in record["batches"]] == [15]


SHORT = (*TINY, "train.steps=12", "train.log_every=1", "train.checkpoint_every=4", "train.warmup_steps=1")


class FailsOnceAt6(FiniteGuard):
    """Step 6 has a gradient that is not finite, but not when it is repeated."""

    failed = False

    def check(self, norm: torch.Tensor, method: nn.Module, step: int) -> None:
        fails, type(self).failed = step == 6 and not self.failed, self.failed or step == 6
        super().check(norm * math.nan if fails else norm, method, step)


@pytest.fixture
def failing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailsOnceAt6, "failed", False)
    monkeypatch.setattr(loop, "FiniteGuard", FailsOnceAt6)


def rates(run: Path) -> list[float]:
    return [row["lr"] for row in read_jsonl(run / "metrics.jsonl")]


def test_the_samples_of_a_stop_are_named_and_the_advised_command_works(
    failing_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "t_jepa", *SHORT, "train.accumulate=2", "--no-eval", "--out", str(run)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"The samples of that step are in {run / 'nonfinite.jsonl'}" in said
    (record,) = read_jsonl(run / "nonfinite.jsonl")
    experiment = api.load(run).untrained()
    batches = train_batches(experiment, 6)
    assert [batch["keys"] for batch in record["batches"]] == [next(batches).keys.tolist() for _ in range(2)]
    assert all(math.isfinite(batch["loss"]) for batch in record["batches"])
    (command,) = re.findall(r"openjepa (train --resume \S+ train\.lr=\S+ --force)", said)
    without_force = command.removesuffix(" --force").split()
    config = (run / "config.yaml").read_bytes()
    assert main([*without_force, "--no-eval"]) == 2
    refused = capsys.readouterr().err
    assert "train.lr: 0.003 -> 0.0015" in refused
    assert "--force" in refused
    assert refused.count("\n") == 1
    assert (run / "config.yaml").read_bytes() == config
    assert main([*command.split(), "--no-eval"]) == 0
    assert api.load(run).config.train.lr == 1.5e-3
    (change,) = read_json(run / "env.json")["changes"]
    assert change == {"after_step": 4, "settings": [{"key": "train.lr", "old": 3e-3, "new": 1.5e-3}]}


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("encoder.dim=64", "encoder.dim: not even --force"),
        ("train.optimizer=sgd", "train.optimizer: not even --force"),
        ("train.predictor_only_fraction=0.9", "cannot be loaded into this optimizer"),
    ],
)
def test_what_the_checkpoint_does_not_bear_is_not_changed_by_force(setting: str, named: str, tmp_path: Path) -> None:
    run = api.train("t_jepa", out=tmp_path / "run", overrides=SHORT, progress=False).path
    before = {name: (run / name).read_bytes() for name in ("config.yaml", "env.json", "manifest.json")}
    with pytest.raises(UserError, match=named):
        api.relocate(run, [setting], force=True)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_rollback_goes_on_from_the_last_checkpoint_at_half_the_rate(
    failing_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, run = tmp_path / "straight", tmp_path / "run"
    settings = [*SHORT, "train.on_nonfinite=rollback", "train.keep_checkpoints=9"]
    FailsOnceAt6.failed = True
    api.train("t_jepa", out=straight, overrides=settings, progress=False)
    FailsOnceAt6.failed = False
    api.train("t_jepa", out=run, overrides=settings, progress=False)
    assert "back to the last checkpoint, with 0.5 times the learning rate" in capsys.readouterr().err
    steps = [row["step"] for row in read_jsonl(run / "metrics.jsonl")]
    assert steps == [*range(1, 13)]
    assert rates(run)[:4] == rates(straight)[:4]
    assert rates(run)[4:] == pytest.approx([rate / 2 for rate in rates(straight)[4:]])
    whole = rates(run)
    for path in checkpoint.finished(run / "checkpoints")[2:]:
        shutil.rmtree(path)
    api.train("", out=run, resume=True, progress=False)
    assert rates(run) == whole, "a run that is resumed later keeps the rate"


def test_rollback_gives_up_after_five_times_and_keeps_what_is_healthy(tmp_path: Path) -> None:
    settings = [*SHORT, "train.lr=1e300", "train.on_nonfinite=rollback"]
    with pytest.raises(TrainingStopped, match="non-finite"):
        api.train("t_jepa", out=tmp_path / "run", overrides=settings, progress=False)
    assert len(list(read_jsonl(tmp_path / "run" / "nonfinite.jsonl"))) == 6
    assert checkpoint.finished(tmp_path / "run" / "checkpoints") == []


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    settings = [*SHORT, "train.steps=1", "train.lr=1e300"]
    with pytest.raises(TrainingStopped, match=r"non-finite weights after step 1, in .* they were not saved"):
        api.train("t_jepa", out=tmp_path / "run", overrides=settings, progress=False)
    assert checkpoint.finished(tmp_path / "run" / "checkpoints") == []


def test_no_verb_writes_vectors_that_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = api.train("t_jepa", out=tmp_path / "run", overrides=[*SHORT, "train.steps=1"], progress=False)
    method = run.experiment.method
    with torch.no_grad():
        next(method.parameters()).fill_(math.nan)
    checkpoint.save(run.folder.checkpoints, 2, method, torch.optim.SGD(method.parameters()))
    (tmp_path / "texts.txt").write_text("one text\nanother\n")
    for words in (
        ["embed", str(run.path), str(tmp_path / "texts.txt"), "--out", str(tmp_path / "vectors.npy")],
        ["similar", str(run.path), "one text", "another"],
        ["export", str(run.path), "--to", "transformers", "--out", str(tmp_path / "exported")],
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert "NaN or infinity" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "texts.txt"]


@pytest.mark.parametrize(
    "setting",
    ["train.lr=.inf", "train.betas=[.nan, 0.9]", "train.optimizer_args={eps: [[.inf]]}", "encoder.dropout=nan"],
)
def test_settings_that_are_not_finite_are_refused(setting: str) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(setting.partition('=')[0])}: .*finite number"):
        Config.load(overrides=[setting])
