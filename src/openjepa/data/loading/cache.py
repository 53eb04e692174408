"""Caches of derived data between runs: their folder, keys, and a lock so that one process builds each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from openjepa.core.errors import UserError, WriteError


def cache_dir() -> Path:
    """The folder of data derived from sources: $OPENJEPA_CACHE, or ~/.cache/openjepa."""
    return Path(os.environ.get("OPENJEPA_CACHE") or "~/.cache/openjepa").expanduser()


@contextmanager
def cache_lock(folder: Path, what: str) -> Generator[None]:
    """Hold a lock on `folder`, creating its parent: ranks and parallel runs wait until one has made it.

    Raises UserError naming `what` is cached there if the folder cannot be written or read.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            yield
    except (OSError, WriteError) as error:
        raise UserError(f"the {what} cache {folder}: {error}; set OPENJEPA_CACHE to a folder with room") from error


def file_versions(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of change (ns) of each file: the part of a key for external data."""
    found = [(file, file.stat()) for file in files]
    return [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file, stat in found]


def code_version(module: ModuleType) -> str:
    """A hash of all files in the module's folder: the part of a key for data that this code generates."""
    code = sorted(file for file in Path(str(module.__file__)).parent.iterdir() if file.is_file())
    return hashlib.blake2b(b"".join(file.read_bytes() for file in code), digest_size=8).hexdigest()


def hash_share(content: bytes) -> float:
    """The hash of some content as a number in [0, 1), the same on every machine."""
    return _hash(content) / 2**64


def in_share(content: bytes, share: float) -> bool:
    """Whether the hash of some content falls in this share of all hashes, the same on every machine."""
    return _hash(content) < share * 2**64


def _hash(content: bytes) -> int:
    """In [0, 2**64)."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
