"""Distances: closed forms, known values of the best constant, naming."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from openjepa.core.errors import UserError
from openjepa.core.locate import locate_function
from openjepa.core.seeding import generator_for
from openjepa.health.skill import pair_cosine, skill
from openjepa.objectives.latent import (
    OBJECTIVES,
    build_objective,
    cosine,
    l1,
    mse,
    named_objective,
    on_the_sphere,
    smooth_l1,
)

ALL = pytest.mark.parametrize("name", OBJECTIVES)


def normal(*shape: int, draw: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator_for(0, "test", draw))


@ALL
def test_one_value_a_row_zero_for_perfect_predictions(name: str) -> None:
    target = normal(7, 5)
    assert OBJECTIVES[name](target, target).shape == (7,)
    torch.testing.assert_close(OBJECTIVES[name](target, target), torch.zeros(7), atol=1e-6, rtol=0)


@ALL
def test_rows_are_independent_and_fp32_even_from_bf16(name: str) -> None:
    predicted, target = normal(6, 8).bfloat16(), normal(6, 8, draw=1).bfloat16()
    rows = OBJECTIVES[name](predicted, target)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows[2:3], OBJECTIVES[name](predicted[2:3], target[2:3]))
    torch.testing.assert_close(rows, OBJECTIVES[name](predicted.double(), target.double()))


@pytest.mark.parametrize(
    ("objective", "value"), [(mse, 1.0), (l1, math.sqrt(2 / math.pi)), (smooth_l1, 0.4246)], ids=lambda x: str(x)[:14]
)
def test_best_constant_pays_what_the_docstring_says(objective, value: float) -> None:
    target = normal(4000, 64)
    assert objective(torch.zeros_like(target), target).mean().item() == pytest.approx(value, rel=5e-3)


def test_equal_to_torch_losses() -> None:
    predicted, target = normal(9, 4), normal(9, 4, draw=1)
    torch.testing.assert_close(mse(predicted, target).mean(), F.mse_loss(predicted, target))
    torch.testing.assert_close(l1(predicted, target).mean(), F.l1_loss(predicted, target))
    torch.testing.assert_close(smooth_l1(predicted, target).mean(), F.smooth_l1_loss(predicted, target))


def test_cosine_ignores_norms_and_spans_0_to_2() -> None:
    predicted, target = normal(9, 4), normal(9, 4, draw=1)
    torch.testing.assert_close(cosine(3 * predicted, 0.1 * target), cosine(predicted, target))
    torch.testing.assert_close(cosine(predicted, -predicted), torch.full((9,), 2.0))
    assert cosine(torch.zeros(1, 4), target[:1]).item() == 1.0


def test_objectives_by_name_or_dotted_path() -> None:
    assert named_objective("smooth_l1") is smooth_l1
    assert named_objective("openjepa.objectives.latent:l1") is l1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smoothl1", "did you mean 'smooth_l1'"),
        ("openjepa.objectives.latent:cosin", "did you mean 'cosine'"),
        ("no_such_package:f", "no module named 'no_such_package'"),
        (":f", "package.module:function"),
    ],
)
def test_unknown_objectives_say_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        named_objective(name)


def test_locate_function_refuses_what_is_not_callable() -> None:
    with pytest.raises(UserError, match="is no function but a dict"):
        locate_function("openjepa.objectives.latent:OBJECTIVES")


def test_skill_on_the_sphere_grows_with_the_cosine() -> None:
    """Half-right directions have skill, whatever their lengths; unrelated ones have none, opposite ones no more."""
    target = normal(4000, 32)
    half = F.normalize(target, dim=-1) + F.normalize(normal(4000, 32, draw=1), dim=-1) * 3**0.5  # cosine 0.5
    predicted, unit = on_the_sphere(half * normal(4000, 1, draw=2).exp(), target * 7)
    assert pair_cosine(predicted, unit) == pytest.approx(0.5, abs=0.01)
    assert skill(predicted, unit) == pytest.approx(0.25, abs=0.01)
    assert skill(F.normalize(half, dim=-1), unit) == pytest.approx(0, abs=0.02)
    assert skill(*on_the_sphere(normal(4000, 32, draw=3), target)) == pytest.approx(0, abs=0.01)
    assert skill(*on_the_sphere(-target, target)) == pytest.approx(0, abs=0.01)
    assert skill(*on_the_sphere(target, target)) == pytest.approx(1, abs=1e-6)


@ALL
def test_a_loss_is_the_mean_over_rows_and_moves_predictions_alone(name: str) -> None:
    predicted, target = normal(7, 5).requires_grad_(), normal(7, 5, draw=1)
    loss = build_objective(name)(predicted, target)
    torch.testing.assert_close(loss, OBJECTIVES[name](predicted, target).mean())
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().sum() > 0


@ALL
def test_skill_is_read_in_the_space_of_the_loss(name: str) -> None:
    """As the vectors are; on the sphere for a cosine, which does not see lengths. The copies lie in the same space."""
    predicted, target, copied = (normal(9, 4, draw=draw) for draw in range(3))
    distance = build_objective(name)
    latents, copies = distance.latents(predicted.requires_grad_(), target), distance.copied(copied, lambda: target)
    assert not latents.predicted.requires_grad
    if name == "cosine":
        expected, unit = on_the_sphere(predicted.detach(), target)
        assert torch.equal(latents.predicted, expected)
        assert torch.equal(latents.target, unit)
        assert torch.equal(copies, on_the_sphere(copied, target)[0])
    else:
        assert torch.equal(latents.predicted, predicted.detach())
        assert torch.equal(latents.target, target)
        assert copies is copied


def test_a_target_with_a_graph_is_noted_in_either_space() -> None:
    held = normal(5, 3).requires_grad_()
    for name in ("mse", "cosine"):
        assert build_objective(name).latents(normal(5, 3, draw=1), 2 * held).target_had_graph
        assert not build_objective(name).latents(2 * held, normal(5, 3, draw=1)).target_had_graph
