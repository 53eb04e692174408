"""Batches as a pure function of (seed, step), for every modality.

An epoch is an addressed permutation of the rows. With a token budget it is cut into windows of about 50 batches, each
window sorted by length and cut into batches of about equal padded size, and the batches shuffled: padding falls to a
few percent and the order stays random. Nothing is consumed or remembered, so a run that resumes at step s plans the
epochs up to s (milliseconds each, no data is read) and goes on with the very batches it would have seen; every rank
takes its rows of the same global batch; and data loading processes change nothing but speed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from openjepa.core.batch import Batch
from openjepa.core.errors import ConfigError, UserError
from openjepa.core.experiment import Experiment, Row
from openjepa.core.seeding import generator_for

WINDOW_BATCHES = 50  # larger: less padding; smaller: more random
EVAL_SEED = 0  # held-out order and masks are the same in all runs, whatever their seed, so that runs compare in pairs


def plan_epoch(
    lengths: np.ndarray | None, n: int, batch_tokens: int, batch_size: int, seed: int, epoch: int, world: int
) -> list[np.ndarray]:
    """Global batches of one epoch: arrays of row numbers in which each of 0..n-1 occurs exactly once.

    With `batch_tokens`, a batch has at most that many *padded* tokens (rows x longest row) and `batch_size` rows.
    Without, it has `batch_size` rows in addressed order. No batch has fewer than 2 rows a rank (or `batch_size`, if
    that is less): a remainder borrows from its neighbour, or joins it if the neighbour has none to spare (only then
    is a batch larger than it should be, with less than twice that minimum).
    Raises ConfigError if a batch of the longest rows would not give every rank two.
    """
    floor = min(2 * world, batch_size)
    if batch_size < world:
        raise ConfigError(f"train.batch_size={batch_size} leaves some of {world} devices without rows; raise it")
    if n < world:
        raise UserError(f"{n} rows are too few for {world} devices; give more data or lower train.devices")
    order = torch.randperm(n, generator=generator_for(seed, "order", epoch)).numpy()  # [n]
    if not batch_tokens:
        return _borrow([order[start : start + batch_size] for start in range(0, n, batch_size)], floor)
    if lengths is None:
        raise ConfigError("train.batch_tokens needs a data set with `lengths`; set it to 0 and use train.batch_size")
    if batch_tokens < floor * (longest := int(lengths.max(initial=0))):
        raise ConfigError(
            f"train.batch_tokens={batch_tokens} holds fewer than {floor} rows of {longest} tokens (the longest); "
            f"raise it to {floor * longest} or lower max_len"
        )
    rows_per_batch = min(batch_size, batch_tokens / max(1.0, float(lengths.mean())))
    window_rows = max(1, round(rows_per_batch * WINDOW_BATCHES))
    window = np.minimum(np.arange(n) // window_rows, max(1, n // window_rows) - 1)  # [n], the last takes the remainder
    order = order[np.lexsort((-lengths[order].astype(np.int64), window))]  # longest first within each window
    bounds = np.searchsorted(window, np.arange(window[-1] + 2))
    batches: list[np.ndarray] = []
    for start, end in pairwise(bounds.tolist()):
        batches += _borrow(_cut(order[start:end], lengths, batch_tokens, batch_size), floor)
    shuffled = torch.randperm(len(batches), generator=generator_for(seed, "batches", epoch)).tolist()
    return [batches[i] for i in shuffled]


def _cut(rows: np.ndarray, lengths: np.ndarray, batch_tokens: int, batch_size: int) -> list[np.ndarray]:
    """Cut rows sorted by falling length: the first row of a batch is its longest, so it alone decides how many fit."""
    sizes = np.minimum(batch_size, batch_tokens // np.maximum(1, lengths[rows])).tolist()
    batches, start = [], 0
    while start < len(rows):
        batches.append(rows[start : start + sizes[start]])
        start += sizes[start]
    return batches


def _borrow(batches: list[np.ndarray], floor: int) -> list[np.ndarray]:
    """Give the last batch at least `floor` rows."""
    if len(batches) < 2 or len(batches[-1]) >= floor:
        return batches
    *others, neighbour, last = batches
    both = np.concatenate([neighbour, last])
    return [*others, both[:-floor], both[-floor:]] if len(both) >= 2 * floor else [*others, both]


def train_batches(exp: Experiment, start_step: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Micro-batches of steps `start_step` .. `exp.train.steps` - 1, `accumulate` a step: this rank's rows of each.

    `draw` of a batch is its number since step 0, equal on all ranks. Takes nothing from torch's global generator.
    """
    cfg = exp.train
    first, end = start_step * cfg.accumulate, cfg.steps * cfg.accumulate
    lengths, n = _rows_of(exp.train_data)  # before data loading processes start: they share what this opens

    def addresses() -> Iterator[_Address]:
        draw = 0
        for epoch in count():
            for rows in plan_epoch(lengths, n, cfg.batch_tokens, cfg.batch_size, cfg.seed, epoch, world):
                if draw >= end:
                    return
                if draw >= first:
                    yield _Address(draw, cfg.seed, epoch, rows[rank::world])
                draw += 1

    yield from _load(_Batches(exp.train_data, exp.collate), addresses(), cfg.workers)


def eval_batches(exp: Experiment, limit_batches: int | None = None) -> Iterator[Batch]:
    """The first `limit_batches` held-out batches (None = all): always the same rows, order and masks, draw 0."""
    lengths, n = _rows_of(exp.eval_data)
    packed = None if lengths is None else lengths.tobytes()
    plan = _eval_plan(packed, n, exp.train.batch_tokens, exp.train.batch_size)[:limit_batches]
    yield from _load(
        _Batches(exp.eval_data, exp.collate), (_Address(0, EVAL_SEED, 0, rows) for rows in plan), workers=0
    )


@lru_cache(maxsize=4)
def _eval_plan(lengths: bytes | None, n: int, batch_tokens: int, batch_size: int) -> list[np.ndarray]:
    unpacked = None if lengths is None else np.frombuffer(lengths, dtype=np.int32)
    return plan_epoch(unpacked, n, batch_tokens, batch_size, EVAL_SEED, epoch=0, world=1)


def _rows_of(data: Any) -> tuple[np.ndarray | None, int]:
    """(lengths [N] int32 or None, N) of a map-style data set."""
    lengths = getattr(data, "lengths", None)  # optional part of the data set protocol, see Experiment.train_data
    return (None if lengths is None else np.asarray(lengths, dtype=np.int32)), len(data)


@dataclass(frozen=True)
class _Address:
    """Everything that decides a batch."""

    draw: int
    seed: int
    epoch: int
    rows: np.ndarray  # [B] of this rank


class _Batches(Dataset):
    """address -> collated batch, so that a whole batch is made in one data loading process."""

    def __init__(self, data: Any, collate: Callable[[Sequence[Row]], Batch]) -> None:
        self.data, self.collate = data, collate

    def __getitem__(self, index: _Address) -> Batch | UserError:
        seed, epoch = index.seed, index.epoch
        try:
            rows = [Row(self.data[i], generator_for(seed, "sample", epoch, i), i) for i in index.rows.tolist()]
            batch = self.collate(rows)
        except UserError as error:  # travels as a value: DataLoader would bury it in a worker's traceback
            return error
        batch.draw = index.draw
        return batch


def _load(batches: _Batches, addresses: Iterator[_Address], workers: int) -> Iterator[Batch]:
    """Batches in the order of their addresses, made here (0 workers) or ahead of time in `workers` processes."""
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=addresses,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # else DataLoader draws from the global one, which dropout reads
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a thread pool does not survive the fork
