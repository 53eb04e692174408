"""FineWeb-Edu, streamed: a loopback hub with its layout and schema, two ranks, a kill in the middle, and a resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openjepa.data.text.sources import is_held_out
from openjepa.training import checkpoint
from tests.hub import serving

NAME = "HuggingFaceFW/fineweb-edu"
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*/*
- config_name: sample-10BT
  data_files:
  - split: train
    path: sample/10BT/*
---
"""
TEXTS = [f"number {i} of words: " + "word " * (i * 7 % 25) + "end" for i in range(300)]  # 1 to 3 rows
TEXTS = [text + "s..." if 0 < len(text) % 64 < 4 else text for text in TEXTS]  # no tail too short for a row
SHARDS = (120, 5, 100, 75)  # documents of each file
HELD_OUT = 0.1
STEPS, EVERY, WORLD, WINDOW = 34, 8, 2, 40  # an epoch is about 27 steps
PATIENCE_S = 120


def fineweb(folder: Path) -> dict[str, bytes]:
    """The repository: its card, and Parquet files with the columns that FineWeb-Edu has."""
    files, start = {"README.md": CARD.encode()}, 0
    for number, size in enumerate(SHARDS):
        rows = range(start, start + size)
        columns = {
            "text": TEXTS[start : start + size],
            "id": [f"<urn:uuid:{i}>" for i in rows],
            "dump": ["CC-MAIN-2024-10"] * size,
            "url": [f"https://example.org/{i}" for i in rows],
            "file_path": ["s3://commoncrawl/example.warc.gz"] * size,
            "language": ["en"] * size,
            "language_score": [0.95] * size,
            "token_count": [len(TEXTS[i].split()) for i in rows],
            "score": [2.5 + i % 3 for i in rows],
            "int_score": [3 + i % 3 for i in rows],
        }
        pq.write_table(pa.table(columns), folder / "shard.parquet", row_group_size=50)
        files[f"sample/10BT/{number:03d}_00000.parquet"] = (folder / "shard.parquet").read_bytes()
        start += size
    files["data/CC-MAIN-2024-10/000.parquet"] = files["sample/10BT/000_00000.parquet"]  # what `default` would read
    return files


RECIPE = '''
"""T-JEPA that notes which rows each rank trains on."""
import json, os
from openjepa.recipes import t_jepa

Config = t_jepa.Config

def build(config, context):
    experiment = t_jepa.build(config, context)
    decode = experiment.train_data.maker.tokenizer.decode

    def note(method, inputs):
        if method.training:
            (batch,) = inputs
            rows = [[key, decode(ids[valid])] for key, ids, valid in zip(batch.keys.tolist(), batch.ids, batch.valid)]
            with open(os.environ["NOTES"] + "-" + str(os.getpid()), "a") as file:
                file.write(json.dumps([batch.draw, rows]) + "\\n")

    experiment.method.register_forward_pre_hook(note)
    return experiment
'''
SETTINGS = (
    f"data.source={NAME}:sample-10BT",
    "data.streaming=true",
    f"data.shuffle_window={WINDOW}",
    f"data.eval_fraction={HELD_OUT}",
    "data.eval_documents=10",
    "tokenizer.kind=bytes",
    "encoder.dim=16",
    "encoder.depth=1",
    "encoder.heads=2",
    "encoder.max_len=64",
    "predictor.width=16",
    "predictor.depth=1",
    "predictor.heads=2",
    f"train.steps={STEPS}",
    f"train.checkpoint_every={EVERY}",
    "train.keep_checkpoints=9",
    "train.health_every=1000",
    "train.health_samples=1",
    "train.batch_tokens=1024",
    "train.batch_size=32",
    f"train.devices={WORLD}",
    "train.accelerator=cpu",
    "train.precision=32-true",
)
Notes = dict[int, list[tuple[int, str]]]  # step -> rows of all ranks: number, text


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a process whose hub is ours."""
    with serving(NAME, fineweb(tmp_path)) as hub:
        yield {**os.environ, **hub, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}


def start(env: dict[str, str], notes: Path, *arguments: str) -> subprocess.Popen:
    """The command line in a session of its own, so that its ranks can be killed with it."""
    command = [sys.executable, "-m", "openjepa", "train", *arguments, "--no-eval"]
    log = notes.with_suffix(".log").open("w")
    return subprocess.Popen(
        command, env={**env, "NOTES": str(notes)}, stdout=log, stderr=log, start_new_session=True, cwd=notes.parent
    )


def kill_after_a_checkpoint(process: subprocess.Popen, run: Path) -> None:
    give_up = time.monotonic() + PATIENCE_S
    try:
        while len(checkpoint.finished(run / "checkpoints")) < 2:
            assert process.poll() is None, "training ended before its second checkpoint"
            assert time.monotonic() < give_up, "no checkpoint appeared"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read(notes: Path) -> Notes:
    """What all ranks noted; no line is lost but the last one of a killed rank."""
    merged: Notes = {}
    files = sorted(notes.parent.glob(f"{notes.name}-*"))
    assert len(files) == WORLD
    for file in files:
        for line in file.read_text().split("\n")[:-1]:
            step, rows = json.loads(line)
            merged.setdefault(step, []).extend((key, text) for key, text in rows)
    return {step: sorted(rows) for step, rows in merged.items()}


@pytest.mark.slow
def test_two_ranks_see_each_document_once_an_epoch_also_over_a_kill(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "noting.py").write_text(RECIPE)
    run = tmp_path / "run"
    first = start(env, tmp_path / "first", str(tmp_path / "noting.py"), *SETTINGS, "--out", str(run))
    kill_after_a_checkpoint(first, run)
    stopped = checkpoint.newest_step(run / "checkpoints")
    mark = checkpoint.load_bookmark(checkpoint.newest(run / "checkpoints"))
    assert EVERY < stopped < STEPS
    assert mark is not None
    assert 0 < mark.draw <= stopped  # it need not read from the start
    second = start(env, tmp_path / "second", "--resume", str(run), "--trust-code")
    assert second.wait(PATIENCE_S) == 0, (tmp_path / "second.log").read_text()

    before, after = read(tmp_path / "first"), read(tmp_path / "second")
    assert sorted(after) == list(range(stopped, STEPS))
    both = [step for step in range(stopped, STEPS - 1) if step in before and step + 1 in before]
    assert [before[step] for step in both] == [after[step] for step in both]  # the same rows, not only as many
    rows = [row for step in range(STEPS) for row in (before if step < stopped else after)[step]]
    size = 1 + max(key for key, _ in rows)
    epoch, rest = sorted(rows[:size]), rows[size:]
    assert [key for key, _ in epoch] == list(range(size))
    assert rest
    assert len({key for key, _ in rest}) == len(rest)  # the second epoch, not over yet
    trained = [text for text in TEXTS if not is_held_out(text, HELD_OUT)]
    assert "".join(text for _, text in epoch) == "".join(trained)
