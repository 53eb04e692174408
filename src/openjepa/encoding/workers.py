"""Chunks of texts to vectors, in their order: in this process, or in several that each have a copy of the encoder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch

from openjepa.core.errors import UserError

AHEAD = 2  # chunks a process that are read before the first is done


class Encoded(NamedTuple):
    """The vectors of a chunk, and what was counted of its texts."""

    vectors: np.ndarray  # [N, D] float32
    counted: dict[str, int]


Encode = Callable[[Sequence[str]], Encoded]
MakeEncode = Callable[[int], Encode]  # by the number of the process, from 0; pickled, so a function of a module


class Chunk(NamedTuple):
    """Texts that are embedded together, and whatever belongs to them."""

    texts: list[str]
    about: Any


Pass = Callable[[Iterable[Chunk]], Iterator[tuple[Chunk, Encoded]]]


@contextmanager
def one_process(encode: Encode) -> Generator[Pass]:
    """Embed chunks here, one after another."""
    yield lambda chunks: ((chunk, _encoded(encode, chunk.texts)) for chunk in chunks)


@contextmanager
def several_processes(count: int, make: MakeEncode) -> Generator[Pass]:
    """Embed chunks in `count` processes, which share this machine's cores.

    At most AHEAD chunks a process are in memory. A script that uses this must guard its main part with
    `if __name__ == "__main__":`. Raises UserError if a process is killed, for example because memory ran out.
    """
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(count):
        numbers.put(number)
    threads = max(1, (os.cpu_count() or 1) // count)
    pool = ProcessPoolExecutor(count, context, initializer=_start, initargs=(make, numbers, threads))

    def run(chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, Encoded]]:
        pending: deque[tuple[Chunk, Future[Encoded]]] = deque()
        try:
            for chunk in chunks:
                pending.append((chunk, pool.submit(_encode, chunk.texts)))
                if len(pending) >= AHEAD * count:
                    first, future = pending.popleft()
                    yield first, future.result()
            for first, future in pending:
                yield first, future.result()
        except BrokenProcessPool:
            raise UserError(
                "a process of --processes ended before its work was done, perhaps for want of memory; "
                "take fewer processes, or smaller --batch-tokens"
            ) from None

    try:
        yield run
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_encoder: list[Encode] = []  # of a worker process, made once


def _start(make: MakeEncode, numbers: SimpleQueue[int], threads: int) -> None:
    """Begin a worker: its own encoder, its part of the cores, and an end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _encoder.append(make(numbers.get()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode(texts: Sequence[str]) -> Encoded:
    return _encoded(_encoder[0], texts)


def _encoded(encode: Encode, texts: Sequence[str]) -> Encoded:
    """The vectors of any number of texts, also of none."""
    return encode(texts) if texts else Encoded(np.zeros((0, 0), dtype=np.float32), {})
