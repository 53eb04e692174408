"""No update from a non-finite gradient, on the CPU at once and on a GPU without waiting for it in every step."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from openjepa import api
from openjepa.core.errors import TrainingStopped
from openjepa.training import loop
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
