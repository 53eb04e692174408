"""Geometry of latents: closed forms, equality with reference libraries, invariances, degenerate input."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from openjepa.core.seeding import generator_for
from openjepa.health.metrics import (
    MOST_ROWS,
    HealthSample,
    effective_rank,
    health,
    lidar,
    mean_cosine,
    position_share,
    scale,
    singular_values,
    spread,
    std,
    teacher_distance,
    top_share,
    uniformity,
)


def normal(*shape: int, draw: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator_for(0, "test", draw))


def rotation(dim: int) -> Tensor:
    return torch.linalg.qr(normal(dim, dim, draw=99).double()).Q


def full_latents(count: int = 60, dim: int = 8) -> HealthSample:
    target = normal(count, dim)
    rows, positions = torch.arange(count) // 6, torch.arange(count) % 6
    predicted, copied = target + normal(count, dim, draw=1), normal(count, dim, draw=2)
    context = normal(10, dim, draw=3)
    return HealthSample(predicted, target, context, rows, positions, copied, context + 0.1 * normal(10, dim, draw=4))


@pytest.mark.parametrize("k", [1, 4, 16])
def test_effective_rank_of_a_rank_k_gaussian_is_about_k(k: int) -> None:
    basis = rotation(64)[:, :k]
    x = normal(4096, k).double() @ basis.T
    assert effective_rank(x) == pytest.approx(k, rel=0.02)


def test_effective_rank_is_exact_for_orthonormal_rows() -> None:
    assert effective_rank(torch.eye(12), centre=False) == pytest.approx(12)
    assert effective_rank(torch.eye(12)) == pytest.approx(11)  # the mean takes one dimension


def test_rankme_is_pulled_down_by_an_offset_and_the_centred_rank_is_not() -> None:
    x = normal(1000, 16)
    assert effective_rank(x + 100, centre=False) < 2
    assert effective_rank(x + 100) == pytest.approx(effective_rank(x), rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_singular_values_equal_svd(shape: tuple[int, int]) -> None:
    x = normal(*shape).double()
    torch.testing.assert_close(singular_values(x), torch.linalg.svdvals(x))


def test_top_share_of_one_direction_and_of_an_isotropic_cloud() -> None:
    line = normal(100, 1) @ normal(1, 8, draw=1)
    assert top_share(singular_values(line)) == pytest.approx(1, abs=1e-6)
    assert top_share(singular_values(normal(20000, 8))) == pytest.approx(1 / 8, rel=0.05)


def test_isotropic_cloud_has_full_spread_no_cosine_and_uniformity_of_its_dimension() -> None:
    x = normal(2000, 64)
    assert spread(x) == pytest.approx(1, abs=2e-3)
    assert mean_cosine(x) == pytest.approx(0, abs=2e-3)
    assert uniformity(x) == pytest.approx(-4 + 8 / 64, abs=0.01)  # log E exp(4 c) for cosines c ~ N(0, 1 / D)
    assert scale(x) == pytest.approx(math.sqrt(64), rel=0.01)
    assert std(x) == pytest.approx(1, abs=0.01)


def test_cosine_and_uniformity_equal_scipy() -> None:
    x = normal(30, 5) + 0.5
    assert mean_cosine(x) == pytest.approx(1 - pdist(x.numpy(), "cosine").mean(), abs=1e-6)
    unit = torch.nn.functional.normalize(x, dim=1).double().numpy()
    assert uniformity(x) == pytest.approx(math.log((2.718281828459045 ** (-2 * pdist(unit) ** 2)).mean()), abs=1e-6)


def test_spread_is_one_minus_cosine_near_collapse() -> None:
    x = 10 * torch.nn.functional.normalize(normal(1, 64), dim=1) + 0.01 * normal(500, 64, draw=1)
    assert spread(x) == pytest.approx(1 - mean_cosine(x), rel=0.02)


@pytest.mark.parametrize("metric", [effective_rank, spread, mean_cosine, uniformity, scale])
def test_metrics_do_not_change_under_rotation(metric) -> None:
    x = normal(50, 8).double() + 0.5
    assert metric(x @ rotation(8)) == pytest.approx(metric(x), abs=1e-9)


@pytest.mark.parametrize("metric", [effective_rank, spread, mean_cosine, uniformity])
@pytest.mark.parametrize("factor", [1e-12, 1e6])
def test_scale_free_metrics_do_not_change_with_scale(metric, factor: float) -> None:
    x = normal(50, 8).double() + 0.5
    assert metric(factor * x) == pytest.approx(metric(x), rel=1e-6)
    assert scale(factor * x) == pytest.approx(factor * scale(x))


@pytest.mark.parametrize("row", [0.0, 0.3, 1e4])
def test_equal_rows_have_no_rank_and_no_spread_not_that_of_rounding(row: float) -> None:
    x = (row * normal(1, 16)).expand(100, 16) * (1 + 1e-7 * normal(100, 16, draw=1))
    assert effective_rank(x) == 0
    assert spread(x) < 1e-12
    assert uniformity(x) == pytest.approx(0, abs=1e-6)


def test_position_share_is_one_for_position_only_and_zero_for_random_positions() -> None:
    positions = torch.arange(400) % 10
    means = normal(10, 8)
    assert position_share(means[positions], positions) == pytest.approx(1)
    assert position_share(normal(400, 8, draw=1), positions) == pytest.approx(0, abs=0.02)
    mixed = position_share(means[positions] * math.sqrt(3) + normal(400, 8, draw=1), positions)
    between = 3 * means.var(0).sum().item()
    assert mixed == pytest.approx(between / (between + 8), abs=0.05)
    assert position_share(normal(10, 8), torch.arange(10)) == 0  # every position once: nothing can be said


def test_teacher_distance_equal_unrelated_opposite_and_blind_to_offsets() -> None:
    x = normal(2000, 8)
    assert teacher_distance(x, x + 5) == pytest.approx(0, abs=1e-9)
    assert teacher_distance(x, normal(2000, 8, draw=1)) == pytest.approx(1, abs=0.05)
    assert teacher_distance(x, -x) == pytest.approx(2)
    assert teacher_distance(torch.ones(5, 2), torch.zeros(5, 2)) == 0


def test_lidar_counts_the_directions_that_tell_classes_apart() -> None:
    classes = torch.arange(600) // 6
    noise = normal(600, 16, draw=1)
    for k in (2, 8):
        centres = torch.zeros(100, 16)
        centres[:, :k] = 30 * normal(100, k)
        x = centres[classes] + noise
        assert lidar(x, classes) == pytest.approx(k, rel=0.1)
        assert lidar(1e3 * x, classes) == pytest.approx(lidar(x, classes), rel=1e-6)
    assert lidar(noise, torch.arange(600)) == 0  # no class has two views


def test_health_has_every_metric_and_all_are_finite() -> None:
    found = health(full_latents())
    optional = {"skill_position", "position_share", "within_row_share", "lidar", "skill_copy", "teacher_distance"}
    assert optional < found.keys()
    assert all(math.isfinite(value) for value in found.values())
    assert found["rank_cap"] == 8
    assert found["rank_frac"] == pytest.approx(found["rank"] / 8)
    bare = full_latents()
    bare.rows = bare.positions = bare.copied = bare.teacher = None
    assert not optional & health(bare).keys()


@pytest.mark.parametrize("count", [0, 1])
def test_health_of_too_few_rows_is_defined(count: int) -> None:
    x, index = normal(count, 4), torch.arange(count)
    assert all(math.isfinite(v) for v in health(HealthSample(x, x, x, index, index, x, x)).values())


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_health_of_constant_latents_is_defined(value: float) -> None:
    x, index = torch.full((9, 4), value), torch.arange(9) // 3
    found = health(HealthSample(x, x, x, index, index, x, x))
    assert all(math.isfinite(v) for v in found.values())
    assert found["skill"] == found["skill_copy"] == found["rank"] == found["spread"] == found["position_share"] == 0


def test_nan_is_reported_not_hidden() -> None:
    latents = full_latents()
    latents.embedding[3, 2] = math.nan
    found = health(latents)
    assert found["nonfinite"] == pytest.approx(1 / (80 + 2 * 480))
    assert math.isnan(found["rank"])
    assert math.isnan(found["spread"])
    assert math.isfinite(found["skill"])


def test_large_input_is_subsampled_alike_every_time_with_rows_kept_together() -> None:
    count = MOST_ROWS + 500
    target = normal(count, 4)
    positions = torch.arange(count) % 3
    latents = HealthSample(
        target + positions[:, None], target, target[:7], torch.arange(count), positions, target, None
    )
    found = health(latents)
    assert found == health(latents)
    assert found["skill_copy"] == 0  # copied equals target row by row: nothing to gain, so alignment survived
    assert found["samples"] == 7
