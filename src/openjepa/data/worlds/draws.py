"""Uniform draws by address, and the fixed hash by which a world holds out combinations."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from openjepa.core.seeding import seed_for

Draw = Callable[[], float]  # uniform in [0, 1): `Random.random`, the one draw that is equal on all Python versions

T = TypeVar("T")


def draws_at(seed: int, *path: int | str) -> Draw:
    """The uniform draws that belong to this address."""
    return random.Random(seed_for(seed, *path)).random


def pick(options: Sequence[T], draw: Draw) -> T:
    """One of the options, uniformly."""
    return options[int(draw() * len(options))]


def scrambled(key: int) -> int:
    """A fixed hash of a key >= 0, for `% share`: below 2^32 and independent of how the key was composed."""
    key = (key ^ key >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    key = (key ^ key >> 12) * 0x297A2D39 & 0xFFFFFFFF
    return key ^ key >> 15
