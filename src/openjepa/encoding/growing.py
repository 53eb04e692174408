"""An .npy file that grows: rows are appended, and the header is written anew, for which NumPy leaves room."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np


class GrowingArray:
    """Rows [N, *shape] of one dtype in an .npy file.

    Args:
        path: the file; made if it does not exist.
        dtype: of its numbers, such as "<f4".
        shape: of a row; () = one number.
        rows: how many rows are whole; what is behind them is cut off.

    Raises OSError if the disk does not take it; see `core.atomic.writing`.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...] = (), rows: int = 0) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.rows = rows
        path.touch()
        self._file = path.open("r+b")
        self._write_header()
        row_bytes = self.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._file.truncate(self._file.tell() + rows * row_bytes)

    def append(self, values: np.ndarray) -> None:
        """Add rows [n, *shape]. They are on the disk when `flush` has been called."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(values, dtype=self.dtype).tobytes())
        self.rows += len(values)

    def flush(self) -> None:
        """Write the number of rows, and all of it to the disk."""
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()

    def abandon(self) -> None:
        """Close as it is; what a full disk did not take is not said again."""
        with suppress(OSError):
            self._file.close()

    def _write_header(self) -> None:
        self._file.seek(0)
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, described)
