"""Batches as a pure function of (seed, step), for every modality.

`plan` groups rows into batches. There is no state, so a run that resumes at step s plans the epochs up to s
(milliseconds each, no data is read) and continues with the same batches as without interruption; every rank takes its
rows of the same global batch; and data loading processes change nothing but speed.

Each window of a stream is planned like an epoch. Resuming would be exact without any state there, too, but it would
read the stream up to s again; so checkpoints keep a bookmark of the window that step s begins in. Windows are read one
ahead in a thread of the main process; data loading processes get the samples and only collate them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment, Offset, Sample, StreamedData, Window
from openjepa.core.seeding import generator_for, seed_for
from openjepa.data.loading.plan import plan_epoch

EVAL_SEED = 0  # held-out order and masks are the same in all runs, whatever their seed, so that runs compare in pairs


@dataclass(frozen=True)
class Bookmark:
    """Start of a window, in the run and in its stream. Plain integers, so that a checkpoint can store it."""

    draw: int = 0  # number of its first batch since step 0
    epoch: int = 0
    offset: Offset | None = None  # None = the start of the epoch


class TrainBatches(Iterator[Batch]):
    """What `train_batches` returns: batches, and bookmarks to resume from.

    The generator refers to the plan of the run, not to this object, so that data loading processes end as soon as this
    object is released. In a reference cycle they would wait for the garbage collector, which kills them after 5 s.
    """

    def __init__(self, plan: _BatchPlan) -> None:
        self._plan = plan
        self._batches = _generated(plan)

    def __next__(self) -> Batch:
        return next(self._batches)

    def close(self) -> None:
        """End the data loading processes, whoever still refers to this object."""
        self._batches.close()

    def bookmark(self, step: int) -> Bookmark | None:
        """The last window that begins at `step` or before it; None if the data is no stream and needs none.

        Call it with rising steps: earlier bookmarks are dropped.
        """
        experiment = self._plan.experiment
        bookmarks = self._plan.bookmarks
        if not isinstance(experiment.train_data, StreamedData):
            return None
        draw = step * experiment.train.accumulate
        passed = sum(mark.draw <= draw for mark in bookmarks)
        del bookmarks[: passed - 1]
        return bookmarks[0]


@dataclass(frozen=True)
class _BatchPlan:
    """The batches of one rank from one step on."""

    experiment: Experiment
    first: int  # number of the first batch since step 0
    rank: int
    world: int
    bookmarks: list[Bookmark]  # of windows begun or read ahead, oldest first
    pin: bool = False  # whether batches are in pinned memory

    def keys(self) -> Iterator[_BatchKey]:
        """Keys of the batches from the first on, planned from the bookmark on."""
        data = self.experiment.train_data
        cfg = self.experiment.train
        end = cfg.steps * cfg.accumulate
        mark = self.bookmarks[0]
        draw = mark.draw
        offset = mark.offset
        for epoch in count(mark.epoch):
            for window in _windows(data, offset):
                self.bookmarks.append(Bookmark(draw, epoch, window.offset))
                # windows of a stream are shuffled separately; any other data set is one window with the run's seed
                seed = seed_for(cfg.seed, "window", window.first) if isinstance(data, StreamedData) else cfg.seed
                sizes = len(window.rows), cfg.batch_tokens, cfg.batch_size
                for rows in plan_epoch(window.lengths, *sizes, seed, epoch, self.world, self.experiment.pad_to):
                    if draw >= self.first:
                        yield self._key(draw, epoch, window, rows[self.rank :: self.world])
                    draw += 1
                    if draw == end:
                        return
            offset = None

    def _key(self, draw: int, epoch: int, window: Window, rows: np.ndarray) -> _BatchKey:
        samples = None if window.rows is self.experiment.train_data else [window.rows[i] for i in rows.tolist()]
        return _BatchKey(draw, self.experiment.train.seed, epoch, window.first + rows, samples)


def _generated(plan: _BatchPlan) -> Generator[Batch]:
    data = plan.experiment.train_data
    experiment = plan.experiment
    if not isinstance(data, StreamedData):
        _rows_of(data)  # before data loading processes start: they share what this opens
    view = getattr(data, "training_view", None)  # optional, see Experiment
    batches = _Batches(data, experiment.collate, view)
    yield from _load(batches, plan.keys(), experiment.train.workers, plan.pin)


def train_batches(
    exp: Experiment,
    start_step: int,
    rank: int = 0,
    world: int = 1,
    bookmark: Bookmark | None = None,
    pin: bool = False,
) -> TrainBatches:
    """Micro-batches of steps `start_step` .. `exp.train.steps` - 1, `accumulate` a step: this rank's rows of each.

    `draw` of a batch is its number since step 0, equal on all ranks. A `bookmark` of `start_step` (or of any step
    before it) only makes the first batch come sooner. `pin` puts batches into pinned memory, for a GPU.
    Does not use torch's global generator.
    """
    return TrainBatches(_BatchPlan(exp, start_step * exp.train.accumulate, rank, world, [bookmark or Bookmark()], pin))


def _windows(data: Any, start: Offset | None) -> Iterator[Window]:
    """The windows of an epoch; a data set that is no stream is one window."""
    if isinstance(data, StreamedData):
        return _ahead(data.windows(start))
    return iter([Window(data, _rows_of(data)[0], first=0, offset=())])


def _ahead(windows: Iterator[Window]) -> Iterator[Window]:
    """Yield the windows, each made in a thread while the one before it is used."""

    def make() -> Window | None:
        return next(windows, None)

    pool = ThreadPoolExecutor(max_workers=1)
    try:
        coming = pool.submit(make)
        while (window := coming.result()) is not None:
            coming = pool.submit(make)
            yield window
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def eval_batches(exp: Experiment, limit_batches: int | None = None) -> Iterator[Batch]:
    """The first `limit_batches` held-out batches (None = all): always the same rows, order and masks, draw 0."""
    lengths, n = _rows_of(exp.eval_data)
    packed = None if lengths is None else lengths.tobytes()
    plan = _eval_plan(packed, n, exp.train.batch_tokens, exp.train.batch_size, exp.pad_to)[:limit_batches]
    yield from _load(
        _Batches(exp.eval_data, exp.collate), (_BatchKey(0, EVAL_SEED, 0, rows) for rows in plan), workers=0
    )


@lru_cache(maxsize=4)
def _eval_plan(lengths: bytes | None, n: int, batch_tokens: int, batch_size: int, pad_to: int) -> list[np.ndarray]:
    unpacked = None if lengths is None else np.frombuffer(lengths, dtype=np.int32)
    return plan_epoch(unpacked, n, batch_tokens, batch_size, EVAL_SEED, epoch=0, world=1, multiple=pad_to)


def _rows_of(data: Any) -> tuple[np.ndarray | None, int]:
    """(lengths [N] int32 or None, N) of a map-style data set."""
    lengths = getattr(data, "lengths", None)  # optional part of the data set protocol, see Experiment.train_data
    return (None if lengths is None else np.asarray(lengths, dtype=np.int32)), len(data)


@dataclass(frozen=True)
class _BatchKey:
    """Everything that determines a batch."""

    draw: int
    seed: int
    epoch: int
    rows: np.ndarray  # [B] of this rank
    samples: Sequence[Any] | None = None  # of a stream: the rows themselves


class _Batches(Dataset):
    """key -> collated batch, so that a whole batch is made in one data loading process."""

    def __init__(
        self,
        data: Any,
        collate: Callable[[Sequence[Sample]], Batch],
        view: Callable[[Any, torch.Generator], Any] | None = None,
    ) -> None:
        self.data = data
        self.collate = collate
        self.view = view

    def __getitem__(self, index: _BatchKey) -> Batch | UserError:
        seed = index.seed
        epoch = index.epoch
        try:
            numbers = index.rows.tolist()
            samples = index.samples or [self.data[i] for i in numbers]
            rows = [
                self._row(sample, generator_for(seed, "sample", epoch, i), i)
                for sample, i in zip(samples, numbers, strict=True)
            ]
            batch = self.collate(rows)
        except UserError as error:  # travels as a value: DataLoader would bury it in a worker's traceback
            return error
        batch.draw = index.draw
        return batch

    def _row(self, sample: Any, generator: torch.Generator, number: int) -> Sample:
        return Sample(sample if self.view is None else self.view(sample, generator), generator, number)


def _load(batches: _Batches, keys: Iterator[_BatchKey], workers: int, pin: bool = False) -> Iterator[Batch]:
    """Batches in the order of their keys, made here (0 workers) or ahead of time in `workers` processes."""
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        pin_memory=pin,
        collate_fn=_as_it_is,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # else DataLoader draws from the global one, which dropout reads
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin_worker(worker: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a thread pool does not survive the fork
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # sent to all processes of a run: the main one ends the others
