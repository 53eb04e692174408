"""One training at a time in a run folder: a lock that the operating system drops with the process that holds it.

`RUN/.training.lock` is locked by the process that trains and says which one that is. A process that was killed leaves
its name there but no lock, and the next one takes over. Data loading processes do not hold it. File systems of several
machines need POSIX locks for it to work across them (NFS 4, Lustre and GPFS have them).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from openjepa.core.atomic import remove_leftovers, writing
from openjepa.core.errors import UserError
from openjepa.core.remarks import is_main_process, remark

LOCK = ".training.lock"
_held: set[Path] = set()  # by this process, to which the operating system would grant the lock twice


@contextmanager
def training_lock(folder: Path) -> Generator[None]:
    """Within the block, no other process trains into `folder`, which is made if it is not there.

    Only the main process of several ranks takes it. Raises UserError naming the process that has it, and WriteError if
    the folder cannot be written.
    """
    if not is_main_process():
        yield
        return
    path = folder.resolve() / LOCK
    if path in _held:
        raise UserError(f"{folder} is being trained by this very process; wait for it, or choose another --out")
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        holder = _holder(path)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is being trained by {holder or 'another process'}; wait for it, stop it, or choose another "
                "--out"
            ) from None
        _held.add(path)
        try:
            if holder:
                remark(f"{folder} was being trained by {holder}, which ended without saying so; taken over")
                remove_leftovers(folder)
                remove_leftovers(folder / "checkpoints")
            with writing(path):
                _write(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
            yield
        finally:
            _held.discard(path)
            _write(file, "")


def _write(file: TextIO, text: str) -> None:
    """Replace what the locked file says; it stays, as whoever removed it could remove another's."""
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _holder(path: Path) -> str:
    """The process that the lock names: "process 71 on node3 since 2026-01-31 12:00:00"; empty if none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return f"process {values['pid']} on {values['host']} since {values['since']}"
    except (ValueError, KeyError, TypeError):
        return ""


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
