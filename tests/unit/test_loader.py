"""Batches are a pure function of (seed, step): cover, budget, padding, resume, workers and ranks."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.errors import ConfigError, UserError
from openjepa.core.experiment import Experiment, Sample
from openjepa.data.loading.loader import eval_batches, plan_epoch, train_batches
from tests.work import calls


def lengths_like_text(n: int) -> np.ndarray:
    """[n] lognormal lengths around 60 tokens, cut at 256 as documents are."""
    rng = np.random.default_rng(0)
    return np.clip(rng.lognormal(4, 0.8, n), 4, 256).astype(np.int32)


LENGTHS = lengths_like_text(5000)


class Rows(Dataset):
    """Item i is i; has lengths if `lengths` is given."""

    def __init__(self, n: int, lengths: np.ndarray | None = None, bad: int = -1) -> None:
        self.n, self.bad = n, bad
        if lengths is not None:
            self.lengths = lengths

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> int:
        if index == self.bad:
            raise UserError(f"row {index} is damaged")
        return index


@dataclass(kw_only=True)
class Drawn(Batch):
    noise: Tensor  # [B] first draw of each row's generator


def collate(rows: Sequence[Sample]) -> Drawn:
    assert all(row.sample == row.index for row in rows)
    noise = torch.stack([torch.rand((), generator=row.generator) for row in rows])
    return Drawn(keys=torch.tensor([row.index for row in rows]), noise=noise)


def experiment(data: Dataset, **train: Any) -> Experiment:
    method: Any = None
    return Experiment(method, data, Rows(100), collate, embedding=Embedding(collate), train=TrainConfig(**train))


def facts(batch: Batch) -> tuple:
    assert isinstance(batch, Drawn)
    return batch.draw, batch.keys.tolist(), batch.noise.tolist()


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(("batch_tokens", "batch_size"), [(0, 64), (0, 7), (4096, 64), (2048, 1000)])
@pytest.mark.parametrize("n", [5000, 4999, 257, 70, 9])
def test_every_row_exactly_once_within_the_budget(n: int, batch_tokens: int, batch_size: int, world: int) -> None:
    lengths = LENGTHS[:n]
    plan = plan_epoch(lengths, n, batch_tokens, batch_size, seed=0, epoch=3, world=world)
    assert np.array_equal(np.sort(np.concatenate(plan)), np.arange(n))
    floor = min(2 * world, batch_size)
    assert all(len(rows) >= floor for rows in plan)
    if batch_tokens and n > 100:
        assert max(len(rows) * lengths[rows].max() for rows in plan) <= batch_tokens
    if n > 100:
        assert max(map(len, plan)) <= max(batch_size, 2 * floor - 1)


@pytest.mark.parametrize("n", range(395, 410))  # windows are 200 rows here
def test_no_batch_is_too_small_for_the_ranks_at_the_edge_of_a_window(n: int) -> None:
    plan = plan_epoch(np.full(n, 10, dtype=np.int32), n, 4096, 4, seed=0, epoch=0, world=2)
    assert np.array_equal(np.sort(np.concatenate(plan)), np.arange(n))
    assert min(map(len, plan)) >= 4


@pytest.mark.parametrize(("batch_tokens", "batch_size"), [(16384, 4096), (8192, 64)])
def test_padding_is_under_five_percent(batch_tokens: int, batch_size: int) -> None:
    lengths = lengths_like_text(30_000)
    plan = plan_epoch(lengths, len(lengths), batch_tokens, batch_size, seed=0, epoch=0, world=1)
    padded = sum(len(rows) * lengths[rows].max() for rows in plan)
    assert 1 - lengths.sum() / padded < 0.05


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(plan_epoch(LENGTHS, 5000, 4096, 64, seed, epoch, 1)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_batches_come_in_no_order_of_length() -> None:
    plan = plan_epoch(LENGTHS, 5000, 4096, 1000, seed=0, epoch=0, world=1)
    longest = np.array([LENGTHS[rows].max() for rows in plan])
    neighbours = np.corrcoef(longest[:-1], longest[1:])[0, 1]
    assert abs(neighbours) < 0.3


def test_a_plan_costs_a_few_calls_a_batch_and_none_a_row() -> None:
    lengths, plan = lengths_like_text(200_000), []
    work = calls(lambda: plan.extend(plan_epoch(lengths, len(lengths), 8192, 64, seed=0, epoch=0, world=2)))
    assert sum(map(len, plan)) == 200_000
    assert work < 5 * len(plan)


def test_impossible_plans_name_the_knob() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_tokens=500 .* raise it to 512"):
        plan_epoch(LENGTHS, 5000, 500, 64, seed=0, epoch=0, world=1)
    with pytest.raises(ConfigError, match="lengths"):
        plan_epoch(None, 100, 500, 64, seed=0, epoch=0, world=1)
    with pytest.raises(ConfigError, match=r"train\.batch_size=2 .* 4 devices"):
        plan_epoch(None, 100, 0, 2, seed=0, epoch=0, world=4)
    with pytest.raises(UserError, match="0 rows"):
        plan_epoch(None, 0, 0, 2, seed=0, epoch=0, world=1)


@pytest.mark.parametrize("train", [{"batch_size": 30}, {"batch_tokens": 1024}])
def test_resume_at_any_step_gives_the_batches_of_an_uninterrupted_run(train: dict) -> None:
    exp = experiment(Rows(200, LENGTHS[:200]), steps=40, accumulate=2, **train)
    whole = [facts(batch) for batch in train_batches(exp, 0)]
    assert [draw for draw, _, _ in whole] == list(range(80))  # several epochs
    for step in (1, 3, 4, 17, 39, 40):
        assert [facts(batch) for batch in train_batches(exp, step)] == whole[2 * step :]


def test_a_row_meets_other_randomness_in_each_epoch_and_seed() -> None:
    def noise(seed: int) -> dict[int, list[float]]:
        seen: dict[int, list[float]] = {}
        for batch in train_batches(experiment(Rows(20), steps=4, batch_size=10, seed=seed), 0):
            for key, value in zip(facts(batch)[1], facts(batch)[2], strict=True):
                seen.setdefault(key, []).append(value)
        return seen

    first, second = noise(0), noise(1)
    assert all(len(set(values)) == 2 for values in first.values())
    assert all(not set(first[key]) & set(second[key]) for key in first)


def test_workers_change_nothing() -> None:
    batches = [
        [facts(b) for b in train_batches(experiment(Rows(90, LENGTHS[:90]), steps=12, batch_tokens=1024, workers=w), 3)]
        for w in (0, 2)
    ]
    assert batches[0] == batches[1]


@pytest.mark.parametrize("train", [{"batch_size": 12}, {"batch_tokens": 2048}])
def test_ranks_partition_the_global_batch(train: dict) -> None:
    exp = experiment(Rows(100, LENGTHS[:100]), steps=10, **train)
    for world in (2, 4):
        ranks = [list(train_batches(exp, 0, rank, world)) for rank in range(world)]
        for parts in zip(*ranks, strict=True):
            assert len({part.draw for part in parts}) == 1
            keys = [key for part in parts for key in part.keys.tolist()]
            assert len(keys) == len(set(keys))
            assert max(part.size for part in parts) - min(part.size for part in parts) <= 1
    alone = [batch.keys.tolist() for batch in train_batches(experiment(Rows(96), steps=10, batch_size=12), 0)]
    pairs = [list(train_batches(experiment(Rows(96), steps=10, batch_size=12), 0, rank, 2)) for rank in (0, 1)]
    assert alone == [
        [key for both in zip(a.keys.tolist(), b.keys.tolist(), strict=True) for key in both]
        for a, b in zip(*pairs, strict=True)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_state_is_left_alone(workers: int) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(islice(train_batches(experiment(Rows(20), steps=3, workers=workers), 0), 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_data_loading_processes_end_when_their_batches_are_dropped() -> None:
    """Not when the garbage collector comes by: it finds them in an order in which DataLoader waits 5 s for them."""
    before = set(multiprocessing.active_children())
    batches = train_batches(experiment(Rows(90), steps=12, workers=1), 0)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    gc.disable()
    try:
        del batches
        assert worker.exitcode == 0  # by itself: neither running nor killed
    finally:
        gc.enable()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_row_is_one_line_also_from_a_worker(workers: int) -> None:
    with pytest.raises(UserError, match=r"^row 7 is damaged$"):
        list(train_batches(experiment(Rows(20, bad=7), steps=3, warmup_steps=1, batch_size=20, workers=workers), 0))


def test_held_out_batches_are_always_the_same() -> None:
    runs = [list(map(facts, eval_batches(experiment(Rows(20), seed=seed, batch_size=16)))) for seed in (0, 1)]
    assert runs[0] == runs[1]  # runs of other seeds are compared on the same rows and masks
    assert sorted(key for _, keys, _ in runs[0] for key in keys) == list(range(100))
    assert {draw for draw, _, _ in runs[0]} == {0}
    assert list(map(facts, eval_batches(experiment(Rows(20), batch_size=16), 2))) == runs[0][:2]
