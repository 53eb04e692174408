"""Streamed training: the rows of a cached corpus, each once an epoch, shuffled in windows, the same after any stop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment, Sample, StreamedData, Window
from openjepa.data.loading.loader import train_batches
from openjepa.data.text import streaming
from openjepa.data.text.corpus import TokenizedCorpus, TokenRow
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig, Document, documents
from openjepa.data.text.streaming import StreamedCorpus, in_windows
from openjepa.data.tokenizers.choice import train_tokenizer
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import train_and_eval

WINDOW = 20
BATCH = {"batch_tokens": 600, "batch_size": 16}
TOKENIZER = train_tokenizer(TokenizerConfig(kind="bytes"), ())
ROWS = TextRows(TOKENIZER, max_len=32)


def text(i: int) -> str:
    """1 to 4 rows of 32 bytes; every 17th document is too short for a row."""
    return f"a {i % 9}"[: 2 + i % 2] + "b" if i % 17 == 5 else f"document {i}" + " word" * (i * 7 % 20)


@pytest.fixture
def cfg(tmp_path: Path) -> DataConfig:
    """230 documents in three files, about 12 windows of them for training."""
    for name, part in (("a", range(100)), ("b", range(100, 103)), ("c", range(103, 230))):
        rows = "".join(json.dumps({"text": text(i)}) + "\n" for i in part)
        (tmp_path / f"{name}.jsonl").write_text(rows)
    return DataConfig(
        source=str(tmp_path), streaming=True, shuffle_window=WINDOW, eval_fraction=0.1, eval_documents=5, min_words=1
    )


@dataclass(kw_only=True)
class Drawn(Batch):
    ids: list[list[int]]
    noise: Tensor  # [B] first draw of each row's generator


def collate(rows: Sequence[Sample]) -> Drawn:
    noise = torch.stack([torch.rand((), generator=row.generator) for row in rows])
    keys = torch.tensor([row.index for row in rows])
    return Drawn(keys=keys, ids=[row.sample.ids.tolist() for row in rows], noise=noise)


def facts(batch: Batch) -> tuple:
    assert isinstance(batch, Drawn)
    return batch.draw, batch.keys.tolist(), batch.ids, batch.noise.tolist()


def experiment(cfg: DataConfig, **train: Any) -> Experiment:
    method: Any = None
    return Experiment(
        method, *train_and_eval(cfg, ROWS), collate, Embedding(collate), TrainConfig.load({**BATCH, **train})
    )


def windows_of(cfg: DataConfig) -> list[Window]:
    return list(StreamedCorpus(cfg, ROWS).windows())


def batches_in_an_epoch(cfg: DataConfig, **train: Any) -> int:
    rows = sum(len(window.rows) for window in windows_of(cfg))
    sizes = (batch.size for batch in train_batches(experiment(cfg, steps=999, **train), 0))
    return 1 + next(n for n, total in enumerate(accumulate(sizes)) if total == rows)


@pytest.fixture
def cached(cfg: DataConfig) -> TokenizedCorpus:
    return TokenizedCorpus(cfg.model_copy(update={"streaming": False}), ROWS)


def test_rows_are_those_of_the_cached_corpus_under_the_same_numbers(cfg: DataConfig, cached: TokenizedCorpus) -> None:
    stream = StreamedCorpus(cfg, ROWS)
    assert isinstance(stream, StreamedData)
    assert not isinstance(cached, StreamedData)
    number = 0
    for window in stream.windows():
        assert window.first == number
        assert window.lengths is not None
        assert window.lengths.tolist() == [len(row.ids) for row in window.rows]
        for row in window.rows:
            expected = cached[number]
            assert row.ids.tolist() == expected.ids.tolist()
            assert row.special.tolist() == expected.special.tolist()
            assert row.document == expected.document
            number += 1
    assert number == len(cached)


@pytest.mark.parametrize("batch", [BATCH, {"batch_tokens": 0, "batch_size": 7}])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_row_once_an_epoch_over_all_ranks(
    cfg: DataConfig, cached: TokenizedCorpus, world: int, batch: dict
) -> None:
    exp = experiment(cfg, steps=160, **batch)
    ranks = [train_batches(exp, 0, rank, world) for rank in range(world)]
    seen: list[int] = []
    for parts in zip(*ranks, strict=True):
        assert len({part.draw for part in parts}) == 1
        assert all(part.size >= 2 for part in parts)
        seen += [key for part in parts for key in part.keys.tolist()]
    assert len(seen) > 2 * len(cached)  # two whole epochs, at least
    for start in (0, len(cached)):
        assert sorted(seen[start : start + len(cached)]) == list(range(len(cached)))


def test_no_held_out_document_is_trained_on(cfg: DataConfig) -> None:
    exp = experiment(cfg, steps=1)
    assert isinstance(exp.train_data, StreamedData)
    trained = {begin(row) for window in exp.train_data.windows() for row in window.rows}
    held_out = [document.text[:32] for document in documents(cfg, "eval")]
    assert not trained & set(held_out)
    assert trained > {document.text[:32] for document in documents(cfg, "train") if len(document.text) > 3}
    assert isinstance(exp.eval_data, TokenizedCorpus)
    rows = [exp.eval_data[i] for i in range(len(exp.eval_data))]
    kept = [next(begin(row) for row in rows if row.document == number) for number in range(rows[-1].document + 1)]
    assert kept == held_out[:5]  # the first ones, as many as `eval_documents` says


def begin(row: TokenRow) -> str:
    return TOKENIZER.decode(row.ids)


def test_documents_are_shuffled_within_their_windows_anew_in_each_epoch_and_seed(cfg: DataConfig) -> None:
    by_rows = {"batch_tokens": 0, "batch_size": 16}
    steps = 2 * batches_in_an_epoch(cfg, **by_rows)
    bounds = [0, *accumulate(len(window.rows) for window in windows_of(cfg))]

    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = train_batches(experiment(cfg, steps=steps, seed=seed, **by_rows), 0)
        keys = [key for batch in batches for key in batch.keys.tolist()][epoch * bounds[-1] :]
        return [keys[start:end] for start, end in pairwise(bounds)]

    first = order(seed=0, epoch=0)
    assert len(first) > 5
    for keys, (start, end) in zip(first, pairwise(bounds), strict=True):
        assert keys != sorted(keys)
        assert sorted(keys) == list(range(start, end))
    assert len({tuple(np.argsort(keys).tolist()) for keys in first}) == len(first)  # each in an order of its own
    assert first == order(seed=0, epoch=0)
    assert first != order(seed=0, epoch=1)
    assert first != order(seed=1, epoch=0)


def test_resume_at_any_step_gives_the_batches_of_an_uninterrupted_run(cfg: DataConfig) -> None:
    steps = batches_in_an_epoch(cfg) // 2 + 10
    exp = experiment(cfg, steps=steps, accumulate=2)
    straight = train_batches(exp, 0)
    whole, marks = [], []
    for step in range(steps):
        marks.append(straight.bookmark(step))
        whole.append([facts(next(straight)) for _ in range(2)])
    assert len(set(marks)) > 10
    assert any(mark is not None and mark.epoch > 0 for mark in marks)
    for step in (1, 2, 9, steps // 2, steps - 9, steps - 1):
        for mark in (marks[step], None):
            batches = [facts(batch) for batch in train_batches(exp, step, bookmark=mark)]
            assert batches == [micro for both in whole[step:] for micro in both]


def test_reading_starts_at_the_bookmark(cfg: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    last = batches_in_an_epoch(cfg) - 1
    exp = experiment(cfg, steps=last + 1)
    straight = train_batches(exp, 0)
    expected = [facts(next(straight)) for _ in range(last + 1)][-1]
    mark = straight.bookmark(last)
    assert mark is not None
    assert mark.offset is not None
    read: list[Document] = []
    monkeypatch.setattr(streaming, "documents", lambda *args: (read.append(d) or d for d in documents(*args)))
    assert facts(next(train_batches(exp, last, bookmark=mark))) == expected
    assert read[0].position == mark.offset[:2]
    assert read[0].position.shard == 2  # the two files before it are not opened


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(cfg: DataConfig, workers: int) -> None:
    def batches(workers: int) -> list[tuple]:
        return [facts(batch) for batch in train_batches(experiment(cfg, steps=50, workers=workers), 3)]

    assert batches(workers) == batches(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_bookmarks_of_batches_made_ahead_are_not_taken(cfg: DataConfig, workers: int) -> None:
    """Data loading processes run ahead of the loop, the bookmark must not."""
    steps = batches_in_an_epoch(cfg)
    batches = train_batches(experiment(cfg, steps=steps, workers=workers), 0)
    offsets = [window.first for window in windows_of(cfg)]
    for step in range(steps):
        batch, mark = next(batches), batches.bookmark(step)
        assert mark is not None
        assert mark.offset is not None
        assert mark.offset[3] == max(first for first in offsets if first <= min(batch.keys.tolist()))


def test_memory_holds_two_windows_and_a_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("".join(f"document {i}\n" for i in range(400)))
    read = 0

    def counted(*args: Any) -> Iterator[Document]:
        nonlocal read
        for document in documents(*args):
            read += 1
            yield document

    cfg = DataConfig(source=str(tmp_path), streaming=True, shuffle_window=WINDOW, eval_fraction=0.1)
    windows = windows_of(cfg)
    firsts, rows = [window.first for window in windows], sum(len(window.rows) for window in windows)  # a document each
    by_rows = {"batch_tokens": 0, "batch_size": 8}
    steps = batches_in_an_epoch(cfg, **by_rows)
    monkeypatch.setattr(streaming, "documents", counted)
    most = 0
    for batch in train_batches(experiment(cfg, steps=steps, **by_rows), 0):
        done = max(first for first in firsts if first <= min(batch.keys.tolist()))
        most = max(most, read - done)
        time.sleep(0.01)  # the thread that reads ahead gets as far as it ever will
    assert 2 * WINDOW <= most <= 2.5 * WINDOW
    assert read == rows


@pytest.mark.parametrize("n", [0, 1, 3, 4, 19, 20, 21, 24, 25, 26, 39, 40, 41, 100])
def test_windows_have_no_small_remainder(n: int) -> None:
    windows = list(in_windows(iter(range(n)), 20))
    assert [item for window in windows for item in window] == list(range(n))
    assert all(len(window) == 20 for window in windows[:-1])
    assert n < 5 or 5 <= len(windows[-1]) < 25


def test_a_source_with_nothing_to_train_on_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b\nc d\n")
    exp = experiment(DataConfig(source=str(tmp_path), streaming=True), steps=2)
    with pytest.raises(UserError, match="nothing is left to train on"):
        next(train_batches(exp, 0))
    gone = experiment(DataConfig(source="gone.jsonl", streaming=True), steps=2)
    with pytest.raises(UserError, match="matches no file"):
        next(train_batches(gone, 0))


def test_a_data_set_that_is_no_stream_needs_no_bookmark(cfg: DataConfig) -> None:
    cached = cfg.model_copy(update={"streaming": False})
    batches = train_batches(experiment(cached, steps=3), 0)
    assert next(batches).draw == 0
    assert batches.bookmark(1) is None


def test_the_stories_stream_too() -> None:
    exp = experiment(DataConfig(streaming=True, shuffle_window=50), steps=4, warmup_steps=1)
    assert [facts(batch) for batch in train_batches(exp, 2)] == [facts(batch) for batch in train_batches(exp, 0)][2:]
