"""Vectors that are being written: a folder beside the output that a killed process leaves usable.

    .vectors.npy.partial/   vectors.npy   the rows so far; its header is made right at the end
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
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

from openjepa.core.atomic import writing
from openjepa.core.errors import UserError
from openjepa.core.rundir import read_json, write_json

VECTORS, IDS, STATE, LOCK = "vectors.npy", "ids.jsonl", "state.json", "lock"


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
        self.dim, self.dtype = dim, np.dtype(dtype)
        self.rows, self.notes = 0, {}  # whole rows, and what else was saved with them
        self.out = out
        self._lock = FileLock(self.path / LOCK)
        try:
            with writing(out):
                self.path.mkdir(exist_ok=True)
                self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process is writing {out}; wait for it, or choose another --out") from None
        try:
            saved = self._saved(out)
            with writing(out):
                self._vectors, self._ids = self._opened(saved)
        except BaseException:
            self._lock.release()
            raise

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
            self._append(ids, vectors)
        self.rows += len(ids)
        self.notes = dict(notes)
        write_json(self.path / STATE, self._state())

    def _append(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        self._vectors.write(np.ascontiguousarray(vectors, dtype=self.dtype).tobytes())
        self._ids.writelines(json.dumps(one).encode() + b"\n" for one in ids)
        for file in (self._vectors, self._ids):
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Write the number of rows into the header, and close the files."""
        with writing(self.out):
            self._vectors.seek(0)
            self._write_header(self._vectors)
            self._vectors.close()
            self._ids.close()

    def remove(self) -> None:
        """Remove the folder."""
        self._close()
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> PartialVectors:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if not self.rows:  # nothing to go on from
            self.remove()
            return
        self._close()
        self._lock.release()

    def _close(self) -> None:
        """Close the files; what a full disk did not take is not said again."""
        for file in (self._vectors, self._ids):
            with suppress(OSError):
                file.close()

    def _saved(self, out: Path) -> dict[str, Any] | None:
        """The state that an earlier process left; None if there is none."""
        if not (self.path / STATE).exists():
            return None
        state = read_json(self.path / STATE)
        theirs = state["settings"]
        differing = [key for key in {**theirs, **self.settings} if theirs.get(key) != self.settings.get(key)]
        if differing:
            named = ", ".join(f"{key} {theirs.get(key)!r}, now {self.settings.get(key)!r}" for key in differing)
            raise UserError(
                f"{self.path} holds {state['rows']} rows for {out} of a command that did not end and was another "
                f"({named}); repeat that one, remove the folder, or choose another --out"
            )
        return state

    def _opened(self, saved: dict[str, Any] | None) -> tuple[IO[bytes], IO[bytes]]:
        """The files, cut to what `saved` says is whole."""
        vectors, ids = ((self.path / name).open("r+b" if saved is not None else "w+b") for name in (VECTORS, IDS))
        header_bytes = self._write_header(vectors)
        if saved is not None:
            self.rows, self.notes = saved["rows"], saved["notes"]
            vectors.truncate(header_bytes + self.rows * self.dim * self.dtype.itemsize)
            ids.truncate(saved["id_bytes"])
        vectors.seek(0, os.SEEK_END)
        ids.seek(0, os.SEEK_END)
        return vectors, ids

    def _write_header(self, file: IO[bytes]) -> int:
        """Write NumPy's header at the file's position; its length. It is padded, so that N can grow in place."""
        shape = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, self.dim)}
        np.lib.format.write_array_header_1_0(file, shape)
        return file.tell()

    def _state(self) -> dict[str, Any]:
        return {"settings": self.settings, "rows": self.rows, "id_bytes": self._ids.tell(), "notes": self.notes}
