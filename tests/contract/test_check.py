"""The preflight catches what it is for: each planted defect fails exactly the law it breaks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from openjepa.core.config import TrainConfig
from openjepa.core.errors import UserError
from openjepa.masking.spans import SpanMasker
from openjepa.preflight import checks
from openjepa.preflight.checks import check_experiment, check_recipe, failed, optimizer_is_complete
from openjepa.training.optim import build_optimizer
from tests.stub_jepa import build_stub
from tests.tiny import TINY, build_recipe

LAWS = (
    "masks",
    "no leak",
    "positions matter",
    "every parameter learns",
    "every parameter is optimised",
    "targets carry no gradient",
    "the target moves",
    "every term trains",
    "one vector per row",
    "padding changes nothing",
)
LEFT = "targets are made by teacher without gradient, and after_step leaves it where it was"


def test_a_sound_method_keeps_all_laws() -> None:
    results = check_experiment(build_stub())
    assert [result.name for result in results] == list(LAWS)
    assert list(failed(results)) == []
    assert all(result.detail for result in results)


@pytest.mark.parametrize(
    ("defect", "law", "said"),
    [
        ("leak", "no leak", "the context view contains it"),
        ("no positions", "positions matter", "add positions"),
        ("idle part", "every parameter learns", "no gradient reaches idle.weight, idle.bias"),
        ("nan gradient", "every parameter learns", "non-finite gradient in student.mix.weight"),
        ("student as target", "targets carry no gradient", "latents.target"),
        ("trained teacher", "targets carry no gradient", "teacher.mix.bias, teacher.mix.weight"),
        ("forgotten teacher", "the target moves", LEFT),
        ("frozen student", "the target moves", LEFT),
        ("detached term", "every term trains", "no gradient comes from variance"),
        ("infinite term", "every term trains", "not finite: variance"),
        ("loses a row", "one vector per row", "(14, 16) for 15 rows"),
        ("reads padding", "padding changes nothing", "mask it in attention and pooling"),
    ],
)
def test_a_planted_defect_fails_its_law_alone(defect: str, law: str, said: str) -> None:
    found = list(failed(check_experiment(build_stub(defect))))
    assert [result.name for result in found] == [law]
    assert said in found[0].detail


@pytest.mark.parametrize(
    ("defect", "unjudged", "said"),
    [
        ("term of rows", {"every term trains", "every parameter learns"}, r"prediction .* no scalar but \[50\]"),
        ("no term", {"every term trains", "every parameter learns"}, "the loss has no term"),
        ("unit vectors", {"every term trains", "every parameter learns"}, "never L2-normalise before SIGReg"),
        ("no latents", {"positions matter", "the target moves"}, "StubJEPA gives no latents in eval mode"),
    ],
)
def test_laws_that_cannot_be_judged_say_why(defect: str, unjudged: set[str], said: str) -> None:
    found = list(failed(check_experiment(build_stub(defect))))
    assert unjudged <= {result.name for result in found}
    assert all(re.search(said, result.detail) for result in found)


def test_a_target_that_is_to_stay_says_so() -> None:
    """The same teacher, left where it is: a defect, or Frozen."""
    results = {result.name: result for result in check_experiment(build_stub("fixed teacher"))}
    assert list(failed(list(results.values()))) == []
    assert results["the target moves"].detail.startswith("targets stay as they are")


def in_padding(valid: Tensor, generator: torch.Generator) -> Tensor:
    hidden = SpanMasker()(valid, generator)
    return hidden | (torch.arange(len(valid)) == len(valid) - 1)  # the last position, real or not


def none_in_short_rows(valid: Tensor, generator: torch.Generator) -> Tensor:
    return SpanMasker()(valid, generator) & valid[-1]


def all_of_short_rows(valid: Tensor, generator: torch.Generator) -> Tensor:
    return SpanMasker()(valid, generator) | (valid & ~valid[-1])


@pytest.mark.parametrize(
    ("masker", "said"),
    [
        (in_padding, r"[1-9]\d* hidden positions are padding"),
        (none_in_short_rows, r"[1-9]\d* rows hide nothing"),
        (all_of_short_rows, r"[1-9]\d* hide everything"),
    ],
)
def test_a_bad_masker_fails_the_masks_law(masker: Callable, said: str) -> None:
    results = {result.name: result for result in check_experiment(build_stub(masker=masker))}
    assert not results["masks"].passed
    assert re.search(said, results["masks"].detail)


def test_a_ratio_that_is_not_kept_fails_the_masks_law() -> None:
    experiment = build_stub(masker=SpanMasker(0.4))
    assert list(failed(check_experiment(replace(experiment, mask_ratio=0.4)))) == []
    assert list(failed(check_experiment(replace(experiment, mask_ratio=None)))) == []
    (result,) = failed(check_experiment(replace(experiment, mask_ratio=0.15)))
    assert result.name == "masks"
    assert "but the config says 15.0%" in result.detail


@pytest.mark.parametrize(
    ("recipe", "settings", "ratio"),
    [
        ("t_jepa", ["mask.ratio=0.4"], 0.4),
        ("mlm", ["mask_ratio=0.3"], 0.3),
        ("i_jepa", ["mask.strategy=random", "mask.ratio=0.5"], 0.5),
        ("i_jepa", ["mask.strategy=block", "mask.ratio=0.5"], None),  # as much as fits the grid is hidden
        ("lejepa", [], None),
        ("vl_jepa", ["mask.strategy=random", "mask.ratio=0.5"], 0.5),
        ("nano_jepa", [], None),
    ],
)
def test_recipes_say_which_share_they_mean_to_hide(
    recipe: str, settings: list[str], ratio: float | None, tmp_path: Path
) -> None:
    assert build_recipe(recipe, tmp_path, *settings).mask_ratio == ratio


def test_a_parameter_in_no_group_fails_its_law(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(method: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        optimizer = build_optimizer(method, config)
        del optimizer.param_groups[0]["params"][2]
        return optimizer

    monkeypatch.setattr(checks, "build_optimizer", forgetful)
    found = list(failed(check_experiment(build_stub())))
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


def test_checking_leaves_the_method_as_it_was() -> None:
    experiment = build_stub(dropout=0.1)
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
    assert [result.name for result in results] == list(LAWS)
    assert list(failed(results)) == []
    assert all(result.detail for result in results)


def test_what_cannot_be_built_is_an_error_not_a_verdict() -> None:
    with pytest.raises(UserError, match="no_such_file"):
        check_recipe("t_jepa", overrides=[*TINY, "data=no_such_file.txt"])
