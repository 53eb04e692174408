"""Folders that exist whole or not at all: filled aside, synced to disk, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(final: Path) -> Generator[Path]:
    """An empty folder to put files into; when the block ends without an error it takes the place of `final`.

    A crash leaves the old folder or the new one (between the two for an instant none), never half of one. What a
    killed process left aside is removed by the next one that writes the same folder.
    """
    aside = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for file in aside.iterdir():
            _sync(file)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _sync(final.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
