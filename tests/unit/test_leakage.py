"""The audit on a stub method: clean as built, and each planted fault is caught."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.method import Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.data.loading.loader import train_batches
from openjepa.models.target import Frozen
from openjepa.preflight.leakage import (
    POSITION_FLOOR,
    gradient_report,
    leak,
    position_sensitivity,
    target_motion,
    target_requires_grad,
    training_terms,
)
from tests.stub_jepa import EMA, StubJEPA, Words, build_stub

START = Progress(0, 10)


def batch(**changes: object) -> Words:
    found = next(train_batches(build_stub(), 0))
    assert isinstance(found, Words)
    return replace(found, **changes)


def one_hidden() -> torch.Tensor:
    """The first word of each text [B, T]."""
    hidden = torch.zeros_like(batch().hidden)
    hidden[:, 0] = True
    return hidden


def audit(method: StubJEPA, **changes: object) -> float:
    return leak(method, batch(**changes), generator_for(0, "other"))


def test_a_clean_method_passes_everything() -> None:
    method = StubJEPA()
    assert audit(method) == 0.0
    assert (position_sensitivity(method, batch()) or 0) > POSITION_FLOOR
    assert gradient_report(method, batch()).clean
    assert target_requires_grad(method, batch(), START) == []
    assert list(training_terms(method, batch())) == ["prediction", "variance"]


def test_a_planted_leak_is_caught() -> None:
    assert audit(StubJEPA("leak")) > 0.01


def test_audits_that_would_prove_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="with_other_hidden changed nothing"):
        audit(StubJEPA(), keeps_hidden=True)
    with pytest.raises(UserError, match="with_other_hidden changed nothing"):
        audit(StubJEPA(), hidden=torch.zeros_like(batch().hidden))


def test_a_batch_that_cannot_be_changed_is_named() -> None:
    class Plain(Words):
        with_other_hidden = Words.__mro__[1].with_other_hidden  # that of every batch

    values = vars(batch())
    with pytest.raises(UserError, match=r"Plain has no with_other_hidden\(generator\)"):
        leak(StubJEPA(), Plain(**values), generator_for(0, "other"))


def test_randomness_inside_the_prediction_is_fixed_and_so_no_leak() -> None:
    assert audit(StubJEPA("noise")) == 0.0


def test_predictions_that_become_nan_are_a_leak() -> None:
    method = StubJEPA()
    with torch.no_grad():
        method.position.weight.fill_(float("nan"))
    assert audit(method) == float("inf")


def test_predictions_without_positions_are_caught() -> None:
    assert position_sensitivity(StubJEPA("no positions"), batch()) == pytest.approx(0, abs=1e-7)
    assert position_sensitivity(StubJEPA(), batch(hidden=one_hidden())) is None  # one prediction a row


def test_parameters_without_gradient_are_named() -> None:
    report = gradient_report(StubJEPA("idle part"), batch())
    assert report.missing == ["idle.weight", "idle.bias"]
    assert not report.clean
    assert gradient_report(StubJEPA("nan gradient"), batch()).nonfinite == ["student.mix.weight"]


def test_a_position_that_never_occurs_is_a_zero_row_not_a_zero_parameter() -> None:
    assert gradient_report(StubJEPA(), batch(hidden=one_hidden())).zero == []


def test_terms_are_those_of_a_training_pass_with_their_graphs() -> None:
    terms = training_terms(StubJEPA("detached term"), batch())
    assert terms["prediction"].requires_grad
    assert not terms["variance"].requires_grad


def test_a_teacher_that_gets_a_gradient_is_named_and_so_is_a_target_with_a_graph() -> None:
    found = target_requires_grad(StubJEPA("trained teacher"), batch(), START)
    assert found == [f"teacher.{name}" for name in ("mix.bias", "mix.weight", "position.weight", "word.weight")]
    assert target_requires_grad(StubJEPA("student as target"), batch(), START) == ["latents.target"]


# --- who moves the target


def test_a_teacher_moves_by_after_step_alone_and_as_slowly_as_its_momentum_says() -> None:
    motion = target_motion(StubJEPA(), batch(), START)
    assert motion.by_training == 0
    assert motion.stuck == []
    assert 0 < motion.by_after_step < 10 * (1 - EMA)  # parameters were moved by N(0, 1)


def test_a_student_that_is_its_own_target_moves_with_training() -> None:
    motion = target_motion(StubJEPA("student as target"), batch(), START)
    assert motion.by_training > 0.1
    assert motion.stuck == []


@pytest.mark.parametrize("defect", ["forgotten teacher", "frozen student"])
def test_a_teacher_that_nothing_moves_is_stuck(defect: str) -> None:
    """Although `after_step` of the stub moves something: the number of steps."""
    motion = target_motion(StubJEPA(defect), batch(), START)
    assert (motion.by_training, motion.by_after_step, motion.stuck) == (0, 0, ["teacher"])


def test_a_frozen_target_is_not_stuck() -> None:
    motion = target_motion(StubJEPA("fixed teacher"), batch(), START)
    assert (motion.by_training, motion.by_after_step, motion.stuck) == (0, 0, [])


class Wrapped(Method[Words]):
    """Another method, somewhere inside."""

    def __init__(self, method: StubJEPA) -> None:
        super().__init__()
        self.inside = nn.ModuleDict({"method": method, "fixed": Frozen(nn.Linear(2, 2))})

    @property
    def method(self) -> StubJEPA:
        method = self.inside["method"]
        assert isinstance(method, StubJEPA)
        return method

    def forward(self, batch: Words) -> StepOutput:
        return self.method(batch)

    def embed(self, batch: Words) -> torch.Tensor:
        return self.method.embed(batch)

    def predict_from_context(self, batch: Words) -> torch.Tensor:
        return self.method.predict_from_context(batch)

    def after_step(self, progress: Progress) -> None:
        self.method.after_step(progress)


def test_a_teacher_is_found_wherever_it_hangs() -> None:
    assert target_motion(Wrapped(StubJEPA()), batch(), START).stuck == []
    assert target_motion(Wrapped(StubJEPA("forgotten teacher")), batch(), START).stuck == ["inside.method.teacher"]


def test_frozen_parts_that_predict_as_well_are_no_teacher() -> None:
    """Word vectors that are not trained, of a student that is its own target and of one with a teacher."""
    for defect in ("", "student as target"):
        method = StubJEPA(defect)
        method.student.word.requires_grad_(False)
        assert target_motion(method, batch(), START).stuck == []


def test_the_audit_leaves_no_trace() -> None:
    method = StubJEPA(dropout=0.5)
    method.train()
    method.teacher.eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    random = torch.random.get_rng_state()
    audit(method)
    position_sensitivity(method, batch())
    gradient_report(method, batch())
    training_terms(method, batch())
    target_motion(method, batch(), START)
    target_requires_grad(method, batch(), START)
    assert method.training
    assert method.student.drop.training
    assert not method.teacher.training
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(p.grad is None for p in method.parameters())
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
