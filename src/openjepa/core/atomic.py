"""Atomic replacement of files and folders: filled under a temporary name, synced to disk, then renamed.

A full or read-only disk is one line that names what could not be written; the temporary part is removed, and what was
there before stays as it was.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from openjepa.core.errors import UserError, WriteError

REASONS = {
    errno.ENOSPC: "the disk is full; free some space and give the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and give the same command again",
    errno.EFBIG: "the file grew beyond the limit of this process or file system (ulimit -f)",
    errno.EROFS: "the file system is read-only; choose a folder elsewhere",
    errno.EACCES: "this user may not write there; choose another folder",
    errno.EPERM: "this user may not write there; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
    errno.EIO: "the disk failed (input/output error); choose another disk",
}
# of libraries that write without Python's files: safetensors, tokenizers, torch, NumPy
ERROR_NUMBERS = re.compile(r"(?:os error|Errno|error code:?) (\d+)")
INCOMPLETE = re.compile(r"PytorchStreamWriter failed|unexpected pos|iostream error|requested and \d+ written")


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Within the block, an error of the disk is a WriteError that names the file, or `path` where it has no name."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = write_failure(error)
        if reason is None:
            raise
        name = getattr(error, "filename", None) or path
        raise WriteError(f"cannot write {name}: {reason}") from error


def require_writable(folder: Path) -> None:
    """Make a folder, and see that files can be made in it, before work is done whose result goes there.

    Raises WriteError if not.
    """
    probe = folder / f".{os.getpid()}.tmp"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


def write_failure(error: Exception) -> str | None:
    """Why something could not be written, and what to do; None if `error` is no error of the disk."""
    number = getattr(error, "errno", None)
    if number is None and (found := ERROR_NUMBERS.search(str(error))):
        number = int(found[1])
    if number in REASONS:
        return REASONS[number]
    if INCOMPLETE.search(str(error)):
        return "only a part of it was written; free some space and give the same command again"
    return None


@contextmanager
def replaced_file(final: Path) -> Generator[Path]:
    """Yield the name of a file that replaces `final` when the block ends without an error.

    Several processes may write the same file at once. Raises WriteError if the disk does not take it.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    with writing(final):
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(final: Path) -> Generator[Path]:
    """Yield an empty folder that replaces `final` when the block ends without an error.

    A crash leaves the old folder or the new one (for an instant neither), never half of one. What a killed process
    left under the temporary name is removed by the next one that writes the same folder. Raises WriteError if the disk
    does not take it; the old folder is then as it was.
    """
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with writing(final):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.iterdir():
                _sync(file)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _sync(final.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left in `folder`."""
    for file in folder.glob(".*.tmp"):
        if file.is_file():
            file.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
