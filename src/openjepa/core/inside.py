"""What a run folder holds stays in it: its own files are no links that lead out, and what is read elsewhere is said.

A run is trained on files of its user, and names them. Verbs that read a run read these again (held-out texts, tasks),
which is right for one's own run and a surprise for a stranger's: so each is named in one line, once a process, unless
this process was told of it by its user.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.core.remarks import remark

CACHED = "models--"  # begins the folder of a model in the hub's cache, where files are links to `blobs`
_named: set[str] = set()  # what the user of this process has named, or was told of


def require_inside(folder: Path, parts: Iterable[str]) -> None:
    """Raises UserError for a link among these parts of a folder, or within them, that leads out of the folder."""
    roots = [folder.resolve(), *(one / "blobs" for one in folder.resolve().parents if one.name.startswith(CACHED))]
    for part in parts:
        for path in _all_of(folder / part):
            if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in roots):
                raise UserError(
                    f"{path} is a link that leads out of the run folder, to {os.readlink(path)}; nothing of the run "
                    "was used. If the run is yours, put a copy of that file there"
                )


def _all_of(path: Path) -> Iterator[Path]:
    """A file, or a folder and all within it. Links are not followed."""
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder) / name for name in (*folders, *files))


def named_by_user(values: Iterable[str]) -> None:
    """The user of this process has given these names of files or data sets."""
    _named.update(values)


def say_outside(folder: Path, key: str, value: str) -> None:
    """Say, once, that a setting of a run makes a verb read something outside of its folder."""
    if value not in _named:
        _named.add(value)
        remark(f"reads {key}={value}, which {folder} names and which is outside of it")
