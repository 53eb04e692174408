"""Draws are a function of their address alone, in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from openjepa.core.seeding import Address, generator_for, seed_for, seed_global

ADDRESSES: list[tuple[Address, ...]] = [
    (0,),
    (1,),
    (-1,),
    (0, "mask"),
    (0, "order"),
    (0, "mask", 0),
    (0, "mask", "0"),
    (0, "mask", 0, 1),
    (0, "mask", 1, 0),
    (0, "mask", 10),
    (0, "mask1", 0),
    (1, "mask", 0),
]


def test_different_addresses_give_different_seeds() -> None:
    assert len({seed_for(*address) for address in ADDRESSES}) == len(ADDRESSES)


def test_seeds_fit_torch() -> None:
    seeds = [seed_for(0, "row", i) for i in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # the whole range is used


def test_the_seed_is_the_same_in_another_process() -> None:
    """Another hash seed, another interpreter: python's own `hash` would fail here."""
    code = "from openjepa.core.seeding import seed_for; print(seed_for(3, 'mask', 7, 'é'))"
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert int(other.stdout) == seed_for(3, "mask", 7, "é")


def test_the_seed_of_an_address_never_changes_between_versions() -> None:
    """Written down, because a change would silently end bitwise resume and comparisons with older runs."""
    assert seed_for(0, "mask", 0, 0) == 3258711683891233144


def test_draws_do_not_depend_on_what_ran_before() -> None:
    first = torch.rand(5, generator=generator_for(0, "sample", 3))
    torch.rand(100)
    generator_for(0, "sample", 2)
    assert torch.equal(torch.rand(5, generator=generator_for(0, "sample", 3)), first)
    assert not torch.equal(torch.rand(5, generator=generator_for(0, "sample", 4)), first)


def test_generators_leave_the_global_one_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    torch.rand(7, generator=generator_for(1, "x"))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("address", ["init", "step"])
def test_seed_global_addresses_the_global_generator(address: str) -> None:
    seed_global(0, address)
    first = torch.nn.Linear(3, 3).weight
    torch.rand(11)
    seed_global(0, address)
    assert torch.equal(torch.nn.Linear(3, 3).weight, first)
    seed_global(1, address)
    assert not torch.equal(torch.nn.Linear(3, 3).weight, first)


def test_neighbouring_addresses_are_uncorrelated() -> None:
    draws = torch.stack([torch.randn(200, generator=generator_for(0, "row", i)) for i in range(200)])  # [200, 200]
    between = torch.corrcoef(draws)[~torch.eye(200, dtype=torch.bool)]
    assert between.mean().abs() < 0.005  # 0 expected, standard error 1 / sqrt(200 * 199 * 200 / 2) = 0.0005
    assert between.std() == pytest.approx(200**-0.5, rel=0.05)
