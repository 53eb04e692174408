"""One process at a time writes an output that is made block by block."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from openjepa.core.atomic import writing
from openjepa.core.errors import UserError

LOCK = "lock"


@contextmanager
def only_writer(folder: Path, out: Path) -> Generator[None]:
    """Within the block, no other process writes `out`, whose parts are in `folder`, which is made if it is not there.

    Raises UserError if another one does, or the disk does not take it.
    """
    lock = FileLock(folder / LOCK)
    try:
        with writing(out):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is writing {out}; wait for it, or choose another --out") from None
    try:
        yield
    finally:
        lock.release()
