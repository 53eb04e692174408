"""Embedding many texts: bfloat16 weights where this CPU multiplies them fast and vectors stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.api import Run, load
from openjepa.cli import main
from openjepa.evals.features import cosine_rows, with_bf16_weights
from openjepa.run import vectors as run_vectors
from tests.tiny import TINY

TEXTS = ["the chef cooked a soup", "a train was late", "word " * 300, "x"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("bulk") / "run"
    assert main(["train", "t_jepa", *TINY, "steps=2", "--out", str(out), "--no-eval"]) == 0
    return load(out, "cpu")


def test_bf16_vectors_are_nearly_those_of_fp32_and_weights_are_left_alone(run: Run) -> None:
    exact, fast = run.to(precision="32").encode(TEXTS), run.to(precision="bf16").encode(TEXTS)
    assert cosine_rows(exact, fast).min() > 0.999
    assert not np.array_equal(exact, fast)
    copied = with_bf16_weights(run.experiment).method
    assert {p.dtype for p in copied.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in run.experiment.method.parameters()} == {torch.float32}


def test_bulk_is_bf16_only_where_it_is_fast_and_holds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_vectors, "cpu_multiplies_bf16", lambda: False)
    assert run.for_bulk() == (run, None)
    monkeypatch.setattr(run_vectors, "cpu_multiplies_bf16", lambda: True)
    fast, cosine = run.for_bulk()
    assert fast.precision == "bf16"
    assert cosine is not None
    assert 0.999 <= cosine < 1
    monkeypatch.setattr(run_vectors, "BF16_COSINE", 1.1)
    assert run.for_bulk() == (run, None)
    exact = run.to(precision="32")
    assert exact.for_bulk() == (exact, None)


def test_the_verb_says_how_near_bf16_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_vectors, "cpu_multiplies_bf16", lambda: True)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    for precision, said in (("auto", True), ("32", False)):
        out = tmp_path / f"{precision}.npy"
        command = ["embed", str(run.path), str(tmp_path / "texts.txt"), "--out", str(out), "--device", "cpu"]
        assert main([*command, "--precision", precision]) == 0
        assert ("in bf16: smallest cosine with fp32 0.99" in capsys.readouterr().err) == said
    assert cosine_rows(np.load(tmp_path / "auto.npy"), np.load(tmp_path / "32.npy")).min() > 0.999


def test_batches_hold_no_more_tokens_than_asked_and_every_row_once() -> None:
    from openjepa.evals.input_rows import grouped_by_length

    rows = [np.zeros(length, dtype=np.int32) for length in (3, 200, 17, 1, 16, 40, 5, 500)]
    groups = list(grouped_by_length(rows, 128))
    assert sorted(number for group in groups for number in group) == list(range(len(rows)))
    for group in groups:
        widest = max(-(-len(rows[number]) // 16) * 16 for number in group)
        assert len(group) == 1 or len(group) * widest <= 128
    lengths = [len(rows[number]) for group in groups for number in group]
    assert lengths == sorted(lengths)
