"""Target normalisations: moments, padding, spread over ranks, no gradient."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.objectives.targets import (
    TARGET_NORMS,
    TargetConfig,
    layer_norm,
    make_targets,
    mean_of_layers,
    named_target_norm,
    standardize,
    target_layers,
)


def latents(*shape: int, draw: int = 0) -> torch.Tensor:
    return 3 + 2 * torch.randn(*shape, generator=generator_for(0, "test", draw))


@pytest.mark.parametrize("name", TARGET_NORMS)
def test_targets_are_fp32_and_carry_no_gradient(name: str) -> None:
    made = TARGET_NORMS[name](latents(4, 3, 8).bfloat16().requires_grad_(), None)
    assert made.dtype == torch.float32
    assert made.shape == (4, 3, 8)
    assert not made.requires_grad


def test_layer_norm_has_unit_moments_within_each_vector_and_is_zero_for_a_constant_one() -> None:
    made = layer_norm(latents(6, 32))
    torch.testing.assert_close(made.mean(-1), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.norm(dim=-1), torch.full((6,), 32**0.5))
    assert layer_norm(torch.full((2, 8), 5.0)).abs().max() == 0


def test_standardize_counts_valid_rows_only_and_maps_dead_dimensions_to_zero() -> None:
    x = latents(4, 5, 8)
    x[..., 2] = 7.0
    valid = torch.rand(4, 5, generator=generator_for(0, "valid")) < 0.6
    x[~valid] = 1e4
    rows = standardize(x, valid)[valid]
    alive = [d for d in range(8) if d != 2]
    torch.testing.assert_close(rows.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows[:, alive].var(0, unbiased=False), torch.ones(7), atol=1e-5, rtol=0)
    assert rows[:, 2].abs().max() == 0
    torch.testing.assert_close(rows, standardize(x[valid]))


def test_standardize_is_exact_far_from_the_origin() -> None:
    x = latents(64, 4) + 1000
    torch.testing.assert_close(standardize(x).std(0, unbiased=False), torch.ones(4), atol=1e-4, rtol=0)


def test_standardize_of_no_rows_is_no_rows() -> None:
    assert standardize(torch.zeros(0, 4)).shape == (0, 4)


def test_mean_of_layers_is_the_mean_of_normed_layers() -> None:
    first, second = (latents(2, 3, 8, draw=i) * 10**i for i in range(2))
    torch.testing.assert_close(mean_of_layers([first, second]), (layer_norm(first) + layer_norm(second)) / 2)
    torch.testing.assert_close(mean_of_layers([first]), layer_norm(first))


def test_target_layers_are_counted_from_the_top() -> None:
    states = [latents(1, draw=i) for i in range(4)]
    assert target_layers(TargetConfig(), states)[0] is states[3]
    chosen = target_layers(TargetConfig(layers=2, skip_top=1), states)
    assert len(chosen) == 2
    assert chosen[0] is states[1]
    assert chosen[1] is states[2]
    assert target_layers(TargetConfig(skip_top=3), states)[0] is states[0]
    with pytest.raises(UserError, match=r"5 layers below the top 0 do not exist in a model that has 4"):
        target_layers(TargetConfig(layers=5), states)
    with pytest.raises(UserError, match=r"1 layers below the top 4"):
        target_layers(TargetConfig(skip_top=4), states)


def test_make_targets_composes_layers_and_norm() -> None:
    states = [latents(2, 3, 8, draw=i) for i in range(3)]
    torch.testing.assert_close(make_targets(TargetConfig(norm="none"), states[:1]), states[0])
    torch.testing.assert_close(make_targets(TargetConfig(norm="none"), states), mean_of_layers(states))
    torch.testing.assert_close(
        make_targets(TargetConfig(norm="standardize"), states), standardize(mean_of_layers(states))
    )


def test_unknown_names_are_explained() -> None:
    with pytest.raises(UserError, match="did you mean 'layer_norm'"):
        named_target_norm("layernorm")
    assert named_target_norm("openjepa.objectives.targets:standardize") is standardize
