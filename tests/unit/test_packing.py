"""Packed rows: every latent and every gradient is what it is with the padding left in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openjepa.core.seeding import generator_for
from openjepa.models.packing import GRAIN, Packing, packing_of
from openjepa.models.transformer import Trunk, key_mask

B, T, D = 8, 40, 16
LENGTHS = torch.tensor([40, 3, 9, 17, 1, 12, 5, 8])
VALID = torch.arange(T) < LENGTHS[:, None]


def normal(*shape: int, draw: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator_for(0, "packing", draw))


def one_by_one(trunk: Trunk, x: Tensor) -> list[Tensor]:
    """The states of each row by itself, without any padding: depth x [real, D]."""
    rows = [trunk.states(row[None, :length]) for row, length in zip(x, LENGTHS, strict=True)]
    return [torch.cat([states[0] for states in level]) for level in zip(*rows, strict=True)]


@pytest.fixture
def trunk() -> Trunk:
    torch.manual_seed(0)
    return Trunk(D, depth=2, heads=2)


def test_what_is_packed_comes_back_and_padding_is_zero() -> None:
    x, packing = normal(B, T, D), Packing(VALID)
    back = packing.unpack(packing.pack(x))
    assert torch.equal(back[VALID], x[VALID])
    kept = torch.zeros(B * T, dtype=torch.bool).index_fill(0, packing.at, True).view(B, T)
    assert (kept | ~VALID).all()
    assert not back[~kept].any()


def test_sizes_are_few_and_rows_that_would_save_little_stay_as_they_are() -> None:
    assert len(Packing(VALID).at) == 128 == 2 * GRAIN  # for 95 real ones
    assert len(Packing(VALID[:1]).at) == 40  # no more than there are positions
    assert packing_of(key_mask(VALID)) is not None
    assert packing_of(None) is None
    assert packing_of(key_mask(torch.ones(B, T, dtype=torch.bool))) is None
    assert packing_of(key_mask(VALID[:, None] & VALID[:, :, None])) is None  # who may read whom is not padding


def test_latents_and_gradients_are_those_of_rows_without_padding(trunk: Trunk) -> None:
    assert packing_of(key_mask(VALID)) is not None
    x, weight = normal(B, T, D).requires_grad_(), normal(int(LENGTHS.sum()), D, draw=1)
    found = []
    for packed in (False, True):
        states = [s[VALID] for s in trunk.states(x, key_mask(VALID))] if packed else one_by_one(trunk, x)
        loss = sum((state * weight).sum() for state in states)
        found.append((states, torch.autograd.grad(loss, [x, *trunk.parameters()])))
    for expected, got in zip(found[0], found[1], strict=True):
        for one, other in zip(expected, got, strict=True):
            torch.testing.assert_close(other, one, atol=2e-5, rtol=1e-4)


def test_gradients_agree_with_finite_differences() -> None:
    packing = Packing(VALID[:2, :5])
    x = normal(2, 5, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: packing.unpack(packing.pack(x).square()), [x])
