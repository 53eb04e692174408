"""Disks that are full and folders that cannot be written, for the process that runs the test."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CAPABILITY_VERSION, DAC_OVERRIDE = 0x20080522, 1


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Within the block no file grows beyond `size` bytes: the writer of the next byte gets an error of the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Within the block this thread cannot write into `folder`, though it be root's."""
    before = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        with _without_override():
            yield
    finally:
        folder.chmod(before)


@contextmanager
def _without_override() -> Iterator[None]:
    """Root may write anywhere by a capability; it is put down, and taken up again."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert libc.capget(header, sets) == 0
    lesser = (ctypes.c_uint32 * 6)(*sets)
    lesser[0] &= ~(1 << DAC_OVERRIDE)
    assert libc.capset(header, lesser) == 0
    try:
        yield
    finally:
        assert libc.capset(header, sets) == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
