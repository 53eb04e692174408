"""Randomness is addressed, not consumed: a draw is a function of (seed, *path), never of what ran before.

This is why a resumed run is bitwise equal to an uninterrupted one and why the number of workers changes nothing.
"""

from __future__ import annotations

import hashlib

import torch

Address = int | str


def seed_for(seed: int, *path: Address) -> int:
    """A 63-bit seed for this address. Equal on every machine, Python version and process."""
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(seed: int, *path: Address) -> torch.Generator:
    """A CPU generator for this address, e.g. `generator_for(seed, "mask", epoch, index)`."""
    return torch.Generator().manual_seed(seed_for(seed, *path))


def seed_global(seed: int, *path: Address) -> None:
    """Point torch's global generators (weight initialisation, dropout) at this address."""
    torch.manual_seed(seed_for(seed, *path))
