"""The preflight catches what it is for: each planted defect fails exactly the law it breaks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa import check
from openjepa.check import CheckResult, check_experiment, check_recipe, failed, optimizer_is_complete
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.core.method import StepOutput
from openjepa.core.progress import Progress
from openjepa.data.masked_text import MaskedText, MaskedTextCollator
from openjepa.masking.spans import SpanMasker
from openjepa.models.transformer import mean_pool, take
from openjepa.objectives.regularizers import sigreg
from openjepa.recipes import t_jepa
from openjepa.recipes.t_jepa import TJEPA
from openjepa.train.optim import build_optimizer
from tests.tiny import TINY, build_tiny


class ShowsTheHidden(TJEPA):
    """The context view holds the hidden ids."""

    def see_context(self, batch: MaskedText) -> tuple[Tensor, Tensor | None]:
        states = self.student(batch.ids, batch.valid)
        return take(states, batch.context_at), take(states, batch.hidden_at)


class ForgetsPlaces(TJEPA):
    """All mask tokens are the same."""

    def predict(self, batch: MaskedText, context: Tensor, slots: Tensor | None) -> Tensor:
        return super().predict(replace(batch, hidden_at=torch.zeros_like(batch.hidden_at)), context, slots)


class ForgetsTheTeacher(TJEPA):
    """The EMA is never updated."""

    def after_step(self, progress: Progress) -> None:
        pass


class TrainsTargets(TJEPA):
    """The student is its own target, with the gradient left in."""

    def teach(self, batch: MaskedText) -> Tensor:
        return self.units(take(self.student(batch.ids, batch.valid), batch.hidden_at)[batch.hidden_valid], batch)


class TrainsTheTeacher(TJEPA):
    """The teacher's parameters get a gradient, although its latents are handed out detached."""

    def teach(self, batch: MaskedText) -> Tensor:
        self.teacher.requires_grad_(True)
        return self.units(take(self.teacher.module(batch.ids, batch.valid), batch.hidden_at)[batch.hidden_valid], batch)

    def _latents(self, batch: MaskedText, predicted: Tensor, target: Tensor, pooled: Tensor) -> t_jepa.Latents:
        return super()._latents(batch, predicted, target.detach(), pooled)


class HasAnIdlePart(TJEPA):
    """A layer that the loss does not use."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.idle = nn.Linear(3, 3)


class MiscountsItsLoss(TJEPA):
    """A term is missing from `terms`."""

    def forward(self, batch: MaskedText) -> StepOutput:
        output = super().forward(batch)
        return StepOutput(output.loss * 2, output.latents, output.terms)


class LosesARow(TJEPA):
    """One vector too few."""

    def embed(self, batch: MaskedText) -> Tensor:
        return super().embed(batch)[1:]


class ReadsPadding(TJEPA):
    """Attention looks at padding."""

    def embed(self, batch: MaskedText) -> Tensor:
        return mean_pool(self.student(batch.ids, torch.ones_like(batch.valid)), batch.valid)


class NormalisesBeforeSigreg(TJEPA):
    """Unit vectors cannot become Gaussian."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.regularizer = lambda z, draw: sigreg(F.normalize(z, dim=-1), draw)


def verdicts(assets: Path, patch: pytest.MonkeyPatch, method: type[TJEPA], *overrides: str) -> list[CheckResult]:
    patch.setattr(t_jepa, "TJEPA", method)
    return list(failed(check_experiment(build_tiny(assets, *overrides))))


@pytest.mark.parametrize(
    ("method", "law", "said"),
    [
        (ShowsTheHidden, "no leak", "the context view contains it"),
        (ForgetsPlaces, "positions matter", "add positions"),
        (ForgetsTheTeacher, "the EMA target moves", "after_step leaves the target where it was"),
        (TrainsTargets, "targets carry no gradient", "latents.target"),
        (TrainsTheTeacher, "targets carry no gradient", "teacher.module"),
        (HasAnIdlePart, "every parameter learns", "no gradient reaches idle.weight, idle.bias"),
        (MiscountsItsLoss, "the loss is the sum of its terms", "prediction"),
        (LosesARow, "one vector per row", "(14, 32) for 15 rows"),
        (ReadsPadding, "padding changes nothing", "mask it in attention and pooling"),
    ],
)
def test_a_defect_in_the_method_fails_its_law_alone(
    method: type[TJEPA], law: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = verdicts(tmp_path, monkeypatch, method)
    assert [result.name for result in found] == [law]
    assert said in found[0].detail


def test_unit_vectors_before_sigreg_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No law can be judged that needs the loss; each says why."""
    found = verdicts(tmp_path, monkeypatch, NormalisesBeforeSigreg)
    assert "every parameter learns" in [result.name for result in found]
    assert all("never L2-normalise before SIGReg" in result.detail for result in found)


def in_padding(valid: Tensor, generator: torch.Generator) -> Tensor:
    hidden = SpanMasker()(valid, generator)
    return hidden | (torch.arange(len(valid)) == len(valid) - 1)  # the last place, real or not


def none_in_short_rows(valid: Tensor, generator: torch.Generator) -> Tensor:
    return SpanMasker()(valid, generator) & valid[-1]


def all_of_short_rows(valid: Tensor, generator: torch.Generator) -> Tensor:
    return SpanMasker()(valid, generator) | (valid & ~valid[-1])


@pytest.mark.parametrize(
    ("masker", "said"),
    [
        (in_padding, r"[1-9]\d* hidden places are padding"),
        (none_in_short_rows, r"[1-9]\d* rows hide nothing"),
        (all_of_short_rows, r"[1-9]\d* hide everything"),
    ],
)
def test_a_bad_masker_fails_the_masks_law(masker: Callable, said: str, tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path)
    collate = experiment.collate
    assert isinstance(collate, MaskedTextCollator)
    results = check_experiment(replace(experiment, collate=replace(collate, masker=masker)))
    found = {result.name: result.detail for result in failed(results)}
    assert re.search(said, found["masks"])
    assert set(found) <= {"masks"}


def test_a_ratio_that_is_not_kept_fails_the_masks_law(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, "mask.ratio=0.4")

    def promising(ratio: float) -> Experiment:
        return replace(experiment, notes=lambda: {"mask_ratio": ratio})

    assert list(failed(check_experiment(promising(0.4)))) == []
    assert [result.name for result in failed(check_experiment(promising(0.15)))] == ["masks"]


def test_a_parameter_in_no_group_fails_its_law(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(method: nn.Module, config: t_jepa.TrainConfig) -> torch.optim.Optimizer:
        optimizer = build_optimizer(method, config)
        del optimizer.param_groups[0]["params"][2]
        return optimizer

    monkeypatch.setattr(check, "build_optimizer", forgetful)
    found = list(failed(check_experiment(build_tiny(tmp_path))))
    assert [result.name for result in found] == ["every parameter is optimised"]
    assert found[0].detail.startswith("in no group: ")


def test_an_optimizer_holds_each_trainable_parameter_once() -> None:
    method = nn.Linear(2, 2)
    assert optimizer_is_complete(method, [method.weight, method.bias])[0]
    assert optimizer_is_complete(method, [method.weight]) == (False, "in no group: bias")
    assert optimizer_is_complete(method, [method.weight, method.bias, method.bias]) == (
        False,
        "a parameter is in two groups",
    )
    method.bias.requires_grad_(False)
    assert optimizer_is_complete(method, [method.weight, method.bias]) == (False, "frozen, yet in a group: bias")


def test_checking_leaves_the_method_as_it_was(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, "encoder.dropout=0.1")
    method = experiment.method
    before = {name: value.clone() for name, value in method.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert list(failed(check_experiment(experiment))) == []
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(p.grad is None for p in method.parameters())
    assert method.training
    assert not method.teacher.training


def test_a_recipe_is_checked_by_name() -> None:
    results = check_recipe("t_jepa", overrides=TINY)
    assert len(results) >= 10
    assert list(failed(results)) == []
    assert all(result.detail for result in results)


def test_what_cannot_be_built_is_an_error_not_a_verdict() -> None:
    with pytest.raises(UserError, match="no_such_file"):
        check_recipe("t_jepa", overrides=[*TINY, "data=no_such_file.txt"])
