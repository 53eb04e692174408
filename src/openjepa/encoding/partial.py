"""Vectors that are being written: a folder beside the output that a killed process leaves usable.

    .vectors.npy.partial/   vectors.npy   the rows so far
                            ids.jsonl     the id of each row, a JSON string a line
                            state.json    how many rows are whole, and what was counted on the way

Blocks are appended; after each, `state.json` says how far the other two are to be trusted. Opened again, they are cut
to that length, so that a process that was killed in the middle of a block costs that block alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.atomic import writing
from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json
from openjepa.core.rundir import write_json
from openjepa.encoding.exclusive import only_writer
from openjepa.encoding.growing import GrowingArray

VECTORS = "vectors.npy"
IDS = "ids.jsonl"
STATE = "state.json"


class PartialVectors:
    """The rows written so far for one output. Use as a context; `finish` or leaving it closes the files.

    Args:
        out: the output; the folder stands beside it.
        settings: what the rows depend on, as JSON values. Rows made with other settings are refused.
        dim: numbers in a row.
        dtype: of these numbers, such as "<f4".

    Raises UserError if another process writes the same output, rows of other settings are there, or the disk is full.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], dim: int, dtype: str) -> None:
        self.path = out.with_name(f".{out.name}.partial")
        self.settings = json.loads(json.dumps(dict(settings)))
        self.out = out
        with ExitStack() as held:
            held.enter_context(only_writer(self.path, out))
            saved = self._saved() or {"rows": 0, "id_bytes": 0, "notes": {}}
            # whole rows, and what else was saved with them
            self.rows = saved["rows"]
            self.notes = saved["notes"]
            self._vectors = GrowingArray(self.path / VECTORS, dtype, (dim,), self.rows)
            with writing(out):
                self._ids = (self.path / IDS).open("ab")
                self._ids.truncate(saved["id_bytes"])
            self._held = held.pop_all()

    @property
    def vectors(self) -> np.ndarray:
        """The rows [N, D] of a finished file, read from disk as they are used."""
        return np.load(self.path / VECTORS, mmap_mode="r")

    @property
    def files(self) -> tuple[Path, Path]:
        """The files of vectors and of ids."""
        return self.path / VECTORS, self.path / IDS

    def append(self, ids: Sequence[str], vectors: np.ndarray, notes: Mapping[str, Any]) -> None:
        """Add rows [N, D] and make them, and `notes`, what a later process goes on from."""
        with writing(self.out):
            self._ids.writelines(json.dumps(one).encode() + b"\n" for one in ids)
            self._ids.flush()
            os.fsync(self._ids.fileno())
            self._vectors.append(vectors)
            self._vectors.flush()
        self.rows += len(ids)
        self.notes = dict(notes)
        write_json(self.path / STATE, self._state())

    def finish(self) -> None:
        """Close the files."""
        with writing(self.out):
            self._vectors.close()
            self._ids.close()

    def remove(self) -> None:
        """Remove the folder."""
        self._release()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> PartialVectors:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if self.rows:
            self._release()
        else:  # nothing to go on from
            self.remove()

    def _release(self) -> None:
        """Close the files; what a full disk did not take is not said again."""
        self._vectors.abandon()
        with suppress(OSError):
            self._ids.close()
        self._held.close()

    def _saved(self) -> dict[str, Any] | None:
        """The state that an earlier process left; None if there is none."""
        if not (self.path / STATE).exists():
            return None
        state = read_json(self.path / STATE)
        theirs = state["settings"]
        differing = [key for key in {**theirs, **self.settings} if theirs.get(key) != self.settings.get(key)]
        if differing:
            named = ", ".join(f"{key} {theirs.get(key)!r}, now {self.settings.get(key)!r}" for key in differing)
            raise UserError(
                f"{self.path} holds {state['rows']} rows for {self.out} of a command that did not end and was another "
                f"({named}); repeat that one, remove the folder, or choose another --out"
            )
        return state

    def _state(self) -> dict[str, Any]:
        return {"settings": self.settings, "rows": self.rows, "id_bytes": self._ids.tell(), "notes": self.notes}
