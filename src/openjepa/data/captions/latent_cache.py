"""Latents of frozen encoders, computed once and kept on disk as float16: later epochs read them.

A cache is one memory-mapped file of all items in sequence, [sum of lengths, D], under `cache_dir()/latents/`. Its name
is a hash of everything that could change a number: encoder, weights, data, preprocessing. It is filled in the order of
the items, and the progress is saved after every chunk, once that is on disk: an interrupted run resumes there. Its size
is printed, and free space checked, before the first latent is computed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.data.loading.cache import cache_dir, cache_lock

CHUNK = 32  # items computed together
SPARE_BYTES = 2**28  # that a disk should keep free

Compute = Callable[[Sequence[int]], Sequence[np.ndarray]]  # numbers of K items -> K latents [L, D]


class LatentCache:
    """`cache[i]` is the latents of item i, [L_i, D] float16, a read-only view. Complete from the first read on.

    Cheap to send to data loading processes, once it is open.
    """

    def __init__(
        self, what: str, key: Callable[[], Any], lengths: Callable[[], Sequence[int]], dim: int, compute: Compute
    ) -> None:
        """`what` names the latents in messages; `key` (a JSON value) and `lengths` [N] are called on the first read."""
        self.what = what
        self.dim = dim
        self._deferred: tuple[Callable[[], Any], Callable[[], Sequence[int]], Compute] | None = (key, lengths, compute)
        self._offsets = np.zeros(1, dtype=np.int64)
        self._folder: Path | None = None
        self._rows: np.ndarray | None = None

    def __getitem__(self, index: int) -> np.ndarray:
        rows = self._open()
        return rows[self._offsets[index] : self._offsets[index + 1]]

    def __getstate__(self) -> dict[str, Any]:
        self._open()
        return {**self.__dict__, "_deferred": None, "_rows": None}

    def _open(self) -> np.ndarray:
        """[sum of L, D] the mapped file, filled first if needed."""
        if self._rows is None:
            if self._folder is None:
                assert self._deferred is not None
                key, lengths, compute = self._deferred
                self._offsets = np.concatenate([[0], np.cumsum(lengths(), dtype=np.int64)])
                digest = hashlib.blake2b(json.dumps([self.dim, key()]).encode(), digest_size=16).hexdigest()
                self._folder = cache_dir() / "latents" / digest
                with cache_lock(self._folder, "latent"):
                    self._fill(self._folder, compute)
            self._rows = np.memmap(self._folder / "latents.f16", np.float16, "r", shape=self._shape)
        return self._rows

    @property
    def _shape(self) -> tuple[int, int]:
        return int(self._offsets[-1]), self.dim

    def _fill(self, folder: Path, compute: Compute) -> None:
        """Compute what is missing."""
        count = len(self._offsets) - 1
        file = folder / "latents.f16"
        done = _done(folder)
        if done == count:
            return
        folder.mkdir(exist_ok=True)
        self._announce(folder, count, done)
        with file.open("ab") as stream:  # keeps the items that are complete
            size = int(self._offsets[-1]) * self.dim * 2
            stream.truncate(size)
            if size and hasattr(os, "posix_fallocate"):  # writing to a hole on a full disk would kill the process
                os.posix_fallocate(stream.fileno(), 0, size)
        rows = np.memmap(file, np.float16, "r+", shape=self._shape)
        for start in range(done, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            rows[self._offsets[start] : self._offsets[numbers.stop]] = np.concatenate(compute(numbers))
            rows.flush()
            _write_done(folder, numbers.stop)

    def _announce(self, folder: Path, count: int, done: int) -> None:
        from rich.console import Console

        size = int(self._offsets[-1]) * self.dim * 2
        missing = size * (count - done) // count
        free = shutil.disk_usage(folder).free
        if missing + SPARE_BYTES > free:
            raise UserError(
                f"the {self.what} take {size / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free in {folder}; set "
                "OPENJEPA_CACHE to a folder with room, take fewer data.images, or train with cache=false"
            )
        resumed = f", {done} of them exist" if done else ""
        text = f"{self.what}: {count} to keep, {size / 1e6:,.1f} MB in {folder}{resumed}"
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def _done(folder: Path) -> int:
    """Items that are complete on disk."""
    try:
        return int((folder / "done").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


def _write_done(folder: Path, count: int) -> None:
    temporary = folder / ".done"
    temporary.write_text(str(count), encoding="utf-8")
    os.replace(temporary, folder / "done")


def weights_hash(module: nn.Module) -> str:
    """Equal for equal parameters and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
