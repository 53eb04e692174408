"""Skill: perfect, useless and harmful predictions; equality with scikit-learn; rare positions; random pairs."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor

from openjepa.core.seeding import generator_for
from openjepa.health.skill import (
    alignment,
    pair_cosine,
    random_pair_cosine,
    skill,
    skill_copy,
    skill_position,
    within_share,
)


def normal(*shape: int, draw: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator_for(0, "test", draw))


def test_skill_is_one_zero_and_negative() -> None:
    target = normal(50, 4) + 3
    assert skill(target, target) == 1
    assert skill(target.mean(0).expand(50, 4), target) == pytest.approx(0, abs=1e-6)
    assert skill(torch.zeros(50, 4), target) < -1


def test_skill_equals_scikit_learn() -> None:
    target = normal(40, 6) * torch.arange(1, 7)
    predicted = target + 0.7 * normal(40, 6, draw=1)
    expected = r2_score(target.numpy(), predicted.numpy(), multioutput="variance_weighted")
    assert skill(predicted, target) == pytest.approx(expected, abs=1e-6)


def test_skill_does_not_change_under_a_common_scale_shift_or_rotation() -> None:
    target, noise = normal(40, 6), normal(40, 6, draw=1)
    turn = torch.linalg.qr(normal(6, 6, draw=2)).Q
    moved = skill(5 * (target + noise) @ turn + 2, 5 * target @ turn + 2)
    assert moved == pytest.approx(skill(target + noise, target), abs=1e-5)


@pytest.mark.parametrize("target", [torch.full((9, 4), 0.3), torch.zeros(9, 4), torch.ones(1, 4), torch.ones(0, 4)])
def test_nothing_to_predict_is_no_skill(target: Tensor) -> None:
    positions = torch.zeros(len(target), dtype=torch.long)
    assert skill(target, target) == skill_position(target, target, positions) == skill_copy(target, target, target) == 0


def test_predicting_the_position_mean_has_skill_but_none_beyond_position() -> None:
    positions = torch.arange(2000) % 10
    means = 2 * normal(10, 8)
    target = means[positions] + normal(2000, 8, draw=1)
    assert skill(means[positions], target) > 0.5
    assert skill_position(means[positions], target, positions) == pytest.approx(0, abs=0.01)
    half = means[positions] + 0.5 * (target - means[positions])
    assert skill_position(half, target, positions) == pytest.approx(0.75, abs=0.01)


def test_rare_positions_are_no_strong_opponent_and_no_weak_one() -> None:
    target = normal(400, 8)
    for positions in (
        torch.arange(400),
        torch.arange(400) // 2,
        torch.arange(400) % 100,
    ):  # seen once, twice, four times
        value = skill_position(0.8 * target, target, positions)
        assert value <= skill(0.8 * target, target)
        assert value == pytest.approx(0.96, abs=0.005)


def test_latents_that_are_position_and_nothing_else_leave_nothing_to_know_beyond_it() -> None:
    positions = torch.arange(100) % 10
    target = normal(10, 8)[positions]
    assert skill_position(target + 1e-3, target, positions) == 0
    assert skill(target, target) == 1


def test_skill_copy_compares_with_the_copied_latents() -> None:
    target = normal(50, 4)
    copied, predicted = target + normal(50, 4, draw=1), target + 0.5 * normal(50, 4, draw=1)
    assert skill_copy(predicted, target, copied) == pytest.approx(0.75, abs=1e-5)
    assert skill_copy(copied, target, copied) == pytest.approx(0, abs=1e-12)


def test_pair_cosines_in_a_cone_are_high_for_any_pair() -> None:
    target = normal(60, 16) + 10
    other = normal(60, 16, draw=1) + 10
    assert pair_cosine(other, target) > 0.95
    assert random_pair_cosine(other, target) == pytest.approx(pair_cosine(other, target), abs=0.01)


def test_random_pair_cosine_is_the_mean_over_all_other_rows() -> None:
    a, b = normal(7, 3), normal(7, 3, draw=1)
    cosines = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)
    assert random_pair_cosine(a, b) == pytest.approx(cosines[~torch.eye(7, dtype=torch.bool)].mean().item(), abs=1e-6)
    assert pair_cosine(a, b) == pytest.approx(cosines.diagonal().mean().item(), abs=1e-6)


def test_alignment_is_twice_one_minus_cosine() -> None:
    a, b = normal(30, 5), normal(30, 5, draw=1)
    assert alignment(a, b) == pytest.approx(2 - 2 * pair_cosine(a, b), abs=1e-9)
    assert alignment(3 * a, a) == pytest.approx(0, abs=1e-9)


def test_within_share_of_equal_random_and_separate_groups() -> None:
    groups = torch.arange(1000) // 2
    x = normal(1000, 8)
    assert within_share(x, groups) == pytest.approx(1, abs=0.05)  # unbiased although groups have two members
    assert within_share(x[groups], groups) == 0
    assert within_share(torch.ones(1000, 8), groups) == 1
    assert within_share(x, torch.arange(1000)) == 1
