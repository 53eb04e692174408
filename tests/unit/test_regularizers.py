"""VICReg and SIGReg: reference values, independence of N, D and ranks, gradients under DDP, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.objectives.regularizers import (
    GAUSSIAN_FLOOR,
    REGULARIZERS,
    RegularizerConfig,
    build_regularizer,
    named_regularizer,
    sigreg,
    sigreg_ratio,
    vicreg,
)
from openjepa.objectives.targets import standardize
from tests.ranks import measure_on_ranks

BOTH = pytest.mark.parametrize("name", ["vicreg", "sigreg"])


def normal(*shape: int, draw: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator_for(0, "test", draw))


def total(name: str, z: torch.Tensor, draw: int = 0) -> torch.Tensor:
    return torch.stack(list(REGULARIZERS[name](z, draw).values())).sum()


def test_gaussian_floor_is_its_integral() -> None:
    value, _ = quad(lambda t: (1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2), -3, 3)
    assert pytest.approx(value, abs=1e-4) == GAUSSIAN_FLOOR


@pytest.mark.parametrize("n", [256, 1024, 4096])
def test_gaussian_rows_score_the_floor_at_any_n(n: int) -> None:
    scores = [sigreg_ratio(sigreg(normal(n, 32, draw=d), d, directions=128)["sigreg"].item(), n) for d in range(3)]
    assert np.mean(scores) == pytest.approx(1.0, abs=0.12)  # sampling error: about 0.05 for one batch


@pytest.mark.parametrize("n", [16, 512])
def test_total_collapse_scores_0402_at_any_n(n: int) -> None:
    assert sigreg(torch.zeros(n, 64))["sigreg"].item() == pytest.approx(0.402, abs=1e-3)


def test_near_unit_norm_rows_score_040_whatever_they_do_and_unit_norm_is_refused() -> None:
    spread = nn.functional.normalize(normal(512, 256), dim=-1)
    same = spread[:1].expand(512, 256)
    for rows in (spread, same):
        assert sigreg(1.01 * rows)["sigreg"].item() == pytest.approx(0.40, abs=0.02)
        with pytest.raises(UserError, match="never L2-normalise before SIGReg"):
            sigreg(rows)


def test_sigreg_equals_the_integral_of_the_empirical_characteristic_function() -> None:
    x = normal(40, 1) * 1.7 + 0.4  # D = 1: the only directions are +1 and -1, which score alike
    values = x[:, 0].double().numpy()

    def integrand(t: float) -> float:
        phi = np.exp(-(t**2) / 2)
        return abs(np.exp(1j * t * values).mean() - phi) ** 2 * phi

    assert sigreg(x)["sigreg"].item() == pytest.approx(quad(integrand, -3, 3)[0], rel=5e-3)


def test_sigreg_directions_depend_on_the_draw_only() -> None:
    z = normal(64, 16) * 2
    torch.manual_seed(1)
    first = sigreg(z, 3)["sigreg"]
    torch.manual_seed(2)
    assert torch.equal(first, sigreg(z, 3)["sigreg"])
    assert not torch.equal(first, sigreg(z, 4)["sigreg"])


def test_sigreg_descent_repairs_a_collapsed_batch() -> None:
    z = (0.05 * normal(96, 8) + 1).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    for draw in range(60):
        optimizer.zero_grad()
        sigreg(z, draw, directions=32)["sigreg"].backward()
        optimizer.step()
    assert z.mean(0).abs().max() < 0.3
    assert z.std(0).min() > 0.7


def test_vicreg_closed_forms() -> None:
    collapsed = vicreg(torch.ones(8, 4))
    assert collapsed["variance"].item() == pytest.approx(0.99)
    assert collapsed["covariance"].item() == 0
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]) * 2  # Var = 8, off-diagonal covariance = 8, twice, over D = 2
    assert vicreg(z, covariance_weight=1.0)["covariance"].item() == pytest.approx(64.0)
    assert vicreg(z)["variance"].item() == 0
    z = normal(4096, 8)
    expected = (torch.cov(z.T) - torch.diag(z.var(0))).square().sum() / 8
    torch.testing.assert_close(vicreg(z, covariance_weight=1.0)["covariance"], expected)


def test_vicreg_mean_term_is_the_squared_mean_vector_and_leaves_the_others_alone() -> None:
    z = normal(64, 4) + torch.tensor([1.0, -2.0, 0.0, 3.0])
    plain, with_mean = vicreg(z), vicreg(z, mean_weight=2.0)
    torch.testing.assert_close(with_mean.pop("mean"), 2 * z.mean(0).square().mean())
    assert with_mean == plain
    assert set(vicreg(normal(1, 4), mean_weight=1.0)) == {"variance", "covariance", "mean"}
    built = build_regularizer(RegularizerConfig(name="vicreg", weight=3, mean=2))(z, 0)
    torch.testing.assert_close(built["mean"], 6 * z.mean(0).square().mean())


@BOTH
def test_scale_of_the_loss_does_not_depend_on_batch_or_width(name: str) -> None:
    values = [total(name, 0.3 * normal(n, d)).item() for n in (512, 4096) for d in (8, 64)]
    assert max(values) < 1.05 * min(values)


@BOTH
def test_bf16_autocast_changes_nothing(name: str) -> None:
    z = normal(64, 16) * 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = total(name, z)
    assert torch.equal(inside, total(name, z))


@BOTH
@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_give_zero_with_a_graph(name: str, n: int) -> None:
    z = normal(n, 4).requires_grad_()
    loss = total(name, z)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


def test_config_scales_every_term_and_names_resolve() -> None:
    z = 0.5 * normal(32, 4)
    weighted = build_regularizer(RegularizerConfig(name="vicreg", weight=3))(z, 0)
    for name, term in vicreg(z).items():
        torch.testing.assert_close(weighted[name], 3 * term)
    assert build_regularizer(RegularizerConfig(name="none"))(z, 0) == {}
    assert named_regularizer("openjepa.objectives.regularizers:sigreg") is sigreg
    with pytest.raises(UserError, match="did you mean 'vicreg'"):
        named_regularizer("vcreg")


ROWS = 16  # of the global batch; rank 0 holds the first five, rank 1 the rest


def _gradients(rank: int, _folder: Path) -> dict[str, torch.Tensor]:
    mine = slice(0, 5) if rank == 0 else slice(5, ROWS)
    x = normal(ROWS, 6)[mine]
    found = {"standardize": standardize(x)}
    for name in ("vicreg", "sigreg"):
        model = DistributedDataParallel(_linear())
        total(name, model(x)).backward()
        found[name] = model.module.weight.grad
    return found


def _linear() -> nn.Linear:
    linear = nn.Linear(6, 4)
    with torch.no_grad():
        linear.weight.copy_(0.3 * normal(4, 6, draw=1))
        linear.bias.zero_()
    return linear


@pytest.mark.slow
def test_two_uneven_ranks_equal_one_process(tmp_path: Path) -> None:
    ranks = measure_on_ranks(_gradients, tmp_path)
    x = normal(ROWS, 6)
    for name in ("vicreg", "sigreg"):
        alone = _linear()
        total(name, alone(x)).backward()
        assert alone.weight.grad is not None
        assert alone.weight.grad.abs().max() > 1e-3
        for found in ranks:
            torch.testing.assert_close(found[name], alone.weight.grad, atol=1e-6, rtol=0)
    both = torch.cat([found["standardize"] for found in ranks])
    torch.testing.assert_close(both, standardize(x), atol=1e-6, rtol=0)
