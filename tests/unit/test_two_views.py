"""Two views pulled together and pushed apart: VICReg's formula, what each weight scales, and what has a gradient."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from openjepa.core.seeding import generator_for
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer
from openjepa.objectives.two_views import TwoViews

N, D = 40, 6


def rows(draw: int) -> Tensor:
    return torch.randn(N, D, generator=generator_for(0, "two views", draw))


def hinge(z: Tensor) -> Tensor:
    """VICReg's variance term, eq. 1, with gamma = 1."""
    return (1 - (z.var(0) + 1e-4).sqrt()).clamp(min=0).mean()


def off_diagonal(z: Tensor) -> Tensor:
    """VICReg's covariance term, eq. 4."""
    covariance = (z - z.mean(0)).T @ (z - z.mean(0)) / (len(z) - 1)  # [D, D]
    return covariance.fill_diagonal_(0).square().sum() / D


def test_the_terms_are_those_of_the_paper() -> None:
    """lambda s(Z, Z') + mu (v(Z) + v(Z')) + nu (c(Z) + c(Z')), eq. 6; here both sides' terms are averaged."""
    first, second = 0.5 * rows(0), 0.3 * rows(1)
    terms = TwoViews(RegularizerConfig(weight=25, covariance=0.04), invariance=7)(first, second, draw=0)
    assert set(terms) == {"variance", "covariance", "invariance"}
    torch.testing.assert_close(terms["variance"], 25 * (hinge(first) + hinge(second)) / 2)
    torch.testing.assert_close(terms["covariance"], 25 * 0.04 * (off_diagonal(first) + off_diagonal(second)) / 2)
    torch.testing.assert_close(terms["invariance"], 7 * (first - second).square().mean())


def test_a_constant_shift_costs_its_square_and_nothing_else() -> None:
    first = rows(0)
    terms, same = (TwoViews(RegularizerConfig(), invariance=3)(first, first + by, draw=0) for by in (0.5, 0.0))
    assert float(terms["invariance"]) == pytest.approx(3 * 0.25, rel=1e-6)
    assert float(same["invariance"]) == 0
    for name in ("variance", "covariance"):
        torch.testing.assert_close(terms[name], same[name], atol=1e-6, rtol=1e-5)


def test_either_weight_scales_its_own_terms() -> None:
    first, second = 0.5 * rows(0), 0.5 * rows(1)

    def terms(weight: float, invariance: float) -> dict[str, Tensor]:
        return TwoViews(RegularizerConfig(weight=weight), invariance)(first, second, draw=0)

    base = terms(1, 1)
    for weight, invariance in product((1, 25), (1, 15)):
        found = terms(weight, invariance)
        torch.testing.assert_close(found["invariance"], invariance * base["invariance"])
        for name in ("variance", "covariance"):
            torch.testing.assert_close(found[name], weight * base[name])


def test_the_pull_moves_each_view_towards_the_other() -> None:
    first, second = rows(0).requires_grad_(), rows(1).requires_grad_()
    TwoViews(RegularizerConfig(), invariance=3)(first, second, draw=0)["invariance"].backward()
    assert first.grad is not None
    assert second.grad is not None
    torch.testing.assert_close(first.grad, (3 * 2 / (N * D) * (first - second)).detach())
    torch.testing.assert_close(second.grad, -first.grad)


@pytest.mark.parametrize("name", ["vicreg", "sigreg"])
def test_without_a_pull_the_first_view_alone_is_regularised(name: str) -> None:
    config = RegularizerConfig(name=name, weight=2)
    views, first = TwoViews(config, invariance=0), rows(0)
    assert not views.pulls
    expected = build_regularizer(config)(first, 3)
    found = views(first, None, draw=3)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[term], expected[term]) for term in expected)


def test_without_a_regulariser_nothing_pulls() -> None:
    """Pulling alone makes all rows equal."""
    views = TwoViews(RegularizerConfig(name="none"), invariance=15)
    assert not views.pulls
    assert views(rows(0), None, draw=0) == {}


def test_randomness_is_that_of_the_draw() -> None:
    views = TwoViews(RegularizerConfig(name="sigreg"), invariance=1)
    assert views.pulls
    one, same, other = (views(rows(0), rows(1), draw)["sigreg"] for draw in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
