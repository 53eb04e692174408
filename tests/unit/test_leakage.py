"""The audit on a stub method: clean as built, and each planted fault is caught."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.method import Latents, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.health.leakage import (
    POSITION_FLOOR,
    gradient_report,
    leak,
    position_sensitivity,
    target_moves,
    target_requires_grad,
)

B, T, D = 4, 6, 8


@dataclass(kw_only=True)
class Points(Batch):
    x: Tensor  # [B, T, D]
    hidden: Tensor  # [B, T] bool


def batch(hidden: int = 2) -> Points:
    mask = torch.zeros(B, T, dtype=torch.bool)
    mask[:, T - hidden :] = True
    return Points(keys=torch.arange(B), x=torch.randn(B, T, D, generator=generator_for(0, "x")), hidden=mask)


class Stub(Method[Points]):
    """Mean of the visible points -> one prediction per hidden place. `fault` plants one defect."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        self.student, self.teacher = nn.Linear(D, D), nn.Linear(D, D)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(fault == "trained teacher").eval()
        self.place, self.drop = nn.Embedding(T, D), nn.Dropout(0.5)
        self.unused = nn.Linear(D, D) if fault == "unused" else None

    def predict_from_context(self, batch: Points) -> Tensor:
        seen = ~batch.hidden if self.fault != "leak" else torch.ones_like(batch.hidden)
        context = (batch.x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)  # [B, D]
        rows, places = batch.hidden.nonzero(as_tuple=True)
        where = torch.zeros_like(places) if self.fault == "no positions" else places
        predicted = self.drop(self.student(context))[rows] + self.place(where)  # [M, D]
        return predicted + torch.rand_like(predicted) * self.fault.count("noise")

    def forward(self, batch: Points) -> StepOutput:
        predicted = self.predict_from_context(batch)
        target = self.teacher(batch.x)[batch.hidden]  # [M, D]
        rows = batch.hidden.nonzero()[:, 0]
        loss = (predicted - (target if self.fault == "trained teacher" else target.detach())).square().mean()
        if self.fault == "nan":
            loss = loss * (self.student.weight.sum() * 0).sqrt()
        held = predicted if self.fault == "attached" else predicted.detach()
        return StepOutput(loss, Latents(held, target.detach(), self.embed(batch).detach(), rows))

    def embed(self, batch: Points) -> Tensor:
        return self.student(batch.x.mean(1))

    def scramble_hidden(self, batch: Points, generator: torch.Generator) -> Points:
        other = torch.randn(batch.x.shape, generator=generator)
        if self.fault == "vacuous":
            other = batch.x
        return replace(batch, x=torch.where(batch.hidden[..., None], other, batch.x))

    def after_step(self, progress: Progress) -> None:
        if self.fault != "frozen teacher":
            with torch.no_grad():
                for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    mine.lerp_(theirs, 0.004)


START = Progress(0, 10)


def audit(method: Stub, hidden: int = 2) -> float:
    return leak(method, batch(hidden), generator_for(0, "scramble"))


def test_a_clean_method_passes_everything() -> None:
    method = Stub()
    assert audit(method) == 0.0
    assert (position_sensitivity(method, batch()) or 0) > POSITION_FLOOR
    assert gradient_report(method, batch()).clean
    assert 0.004 < target_moves(method, START) < 0.02  # (1 - momentum) x the largest of 72 normal numbers
    assert target_requires_grad(method, batch(), START) == []


def test_a_planted_leak_is_caught() -> None:
    assert audit(Stub("leak")) > 0.01


def test_audits_that_would_prove_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="scramble_hidden changed nothing"):
        audit(Stub("vacuous"))
    with pytest.raises(UserError, match="scramble_hidden changed nothing"):
        audit(Stub(), hidden=0)


def test_randomness_inside_the_prediction_is_fixed_and_so_no_leak() -> None:
    assert audit(Stub("noise")) == 0.0


def test_predictions_that_become_nan_are_a_leak() -> None:
    method = Stub()
    with torch.no_grad():
        method.place.weight.fill_(float("nan"))
    assert audit(method) == float("inf")


def test_predictions_without_positions_are_caught() -> None:
    assert position_sensitivity(Stub("no positions"), batch()) == pytest.approx(0, abs=1e-7)
    assert position_sensitivity(Stub(), batch(hidden=1)) is None  # one prediction a row: nothing to compare


def test_parameters_without_gradient_are_named() -> None:
    report = gradient_report(Stub("unused"), batch())
    assert report.missing == ["unused.weight", "unused.bias"]
    assert not report.clean
    assert "student.weight" in gradient_report(Stub("nan"), batch()).nonfinite


def test_a_place_that_never_occurs_is_a_zero_row_not_a_zero_parameter() -> None:
    assert gradient_report(Stub(), batch()).zero == []


def test_a_frozen_teacher_does_not_move_and_a_trained_one_is_named() -> None:
    assert target_moves(Stub("frozen teacher"), START) == 0
    assert target_requires_grad(Stub("trained teacher"), batch(), START) == ["teacher.bias", "teacher.weight"]
    assert target_requires_grad(Stub("attached"), batch(), START) == ["latents.predicted"]


def test_the_audit_leaves_no_trace() -> None:
    method = Stub()
    method.train()
    method.teacher.eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    random = torch.random.get_rng_state()
    audit(method)
    position_sensitivity(method, batch())
    gradient_report(method, batch())
    target_moves(method, START)
    target_requires_grad(method, batch(), START)
    assert method.training
    assert method.drop.training
    assert not method.teacher.training
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(p.grad is None for p in method.parameters())
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
