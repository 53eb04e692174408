"""Group rows into the batches of an epoch, or of a window of a stream, as a pure function of (seed, epoch).

An addressed permutation of the rows. With a token budget it is cut into windows of about 50 batches, each sorted by
length and cut into batches of about equal padded size, and the batches are shuffled: padding falls to a few percent
and the order stays random.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from openjepa.core.errors import ConfigError, UserError
from openjepa.core.seeding import generator_for
from openjepa.core.sizes import round_up

WINDOW_BATCHES = 50  # larger: less padding; smaller: more random


def plan_epoch(
    lengths: np.ndarray | None,
    n: int,
    batch_tokens: int,
    batch_size: int,
    seed: int,
    epoch: int,
    world: int,
    multiple: int = 1,
) -> list[np.ndarray]:
    """Global batches of one epoch: arrays of row numbers in which each of 0..n-1 occurs exactly once.

    With `batch_tokens`, a batch has at most that many *padded* tokens (rows x longest row, rounded up to a `multiple`)
    and `batch_size` rows. Without, it has `batch_size` rows in addressed order. No batch has fewer than 2 rows a rank
    (or `batch_size`, if that is less): a remainder borrows from its neighbour, or joins it if the neighbour has none to
    spare (only then is a batch larger than it should be, with less than twice that minimum).
    Raises ConfigError if a batch of the longest rows would not give every rank two.
    """
    batch_size = min(batch_size, max(n, world))  # any larger one is the same, and may not fit into an array
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
    lengths = round_up(lengths.astype(np.int64), multiple)
    if batch_tokens < floor * (longest := int(lengths.max(initial=0))):
        raise ConfigError(
            f"train.batch_tokens={batch_tokens} holds fewer than {floor} rows of {longest} tokens (the longest); "
            f"raise it to {floor * longest} or make rows shorter (max_len, or sentences.passages where there are any)"
        )
    rows_per_batch = min(batch_size, batch_tokens / max(1.0, float(lengths.mean())))
    window_rows = max(1, round(rows_per_batch * WINDOW_BATCHES))
    window = np.minimum(np.arange(n) // window_rows, max(1, n // window_rows) - 1)  # [n], the last takes the remainder
    order = order[np.lexsort((-lengths[order], window))]  # longest first within each window
    bounds = np.searchsorted(window, np.arange(window[-1] + 2))
    batches: list[np.ndarray] = []
    for start, end in pairwise(bounds.tolist()):
        batches += _borrow(_cut(order[start:end], lengths, batch_tokens, batch_size), floor)
    shuffled = torch.randperm(len(batches), generator=generator_for(seed, "batches", epoch)).tolist()
    return [batches[i] for i in shuffled]


def _cut(rows: np.ndarray, lengths: np.ndarray, batch_tokens: int, batch_size: int) -> list[np.ndarray]:
    """Cut rows sorted by falling length: the first row of a batch is its longest, so it decides how many fit."""
    sizes = np.minimum(batch_size, batch_tokens // np.maximum(1, lengths[rows])).tolist()
    batches = []
    start = 0
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
