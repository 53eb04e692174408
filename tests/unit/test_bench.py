"""The benchmarks run and say what they promise. How fast anything is, is asked of no test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_bench_step_writes_what_the_readme_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import bench_step

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"The {a} {b} sat on number {i}." for i, a in enumerate("abcdefghij") for b in "klmno"))
    asked = ["--toy", "--seconds", "0.1", "--json", "--results", str(tmp_path), "--data", str(corpus)]
    bench_step.main(["t_jepa", *asked, "mask.ratio=0.3"])
    result = json.loads((tmp_path / "step_t_jepa_toy.json").read_text())
    assert json.loads(capsys.readouterr().out) == result
    for side in (result["ours"], result["reference"]):
        assert side["steps"] >= 5
        assert 0 <= side["padding_share"] < 1
        assert min(side["tokens_per_s"], side["step_ms"], side["trained_parameters"]) > 0
    assert 0 < result["ratio"]["min"] <= result["ratio"]["median"] <= result["ratio"]["max"]
    assert result["share_of_bf16_matmul_rate"] > 0
    assert result["overrides"] == ["mask.ratio=0.3"]
    assert {"name", "data", "torch", "threads", "load_average", "vocabulary", "size"} <= set(result)
    assert str(tmp_path) not in json.dumps(result)  # results are shared: no paths of this machine


def test_flops_of_a_step_are_counted_in_closed_form() -> None:
    from stepping import Read, count_flops

    x, weight = torch.ones(6, 4), torch.ones(4, 8, requires_grad=True)

    def step() -> Read:
        (x @ weight).sum().backward()  # forward 2 * 6 * 4 * 8, backward the same for the weight
        return Read(6, [])

    assert count_flops(step) == 2 * 2 * 4 * 8


def test_the_reference_learns_hides_its_share_and_never_padding(tmp_path: Path) -> None:
    from reference_t_jepa import LENGTH, ReferenceTJEPA
    from transformers import DistilBertConfig

    DistilBertConfig(vocab_size=30, n_layers=1, dim=16, n_heads=2, hidden_dim=32).save_pretrained(tmp_path)
    reference = ReferenceTJEPA(tmp_path, pad_id=0, mask_id=4)
    before = [p.clone() for p in reference.teacher.parameters()]
    valid = reference.step([np.arange(5, 15, dtype=np.int32), np.full(200, 7, dtype=np.int32)])
    assert valid.sum(1).tolist() == [10, LENGTH]
    assert any(not torch.equal(old, new) for old, new in zip(before, reference.teacher.parameters(), strict=True))
    hidden = torch.zeros(LENGTH, dtype=torch.bool)
    reference.hide_spans(hidden, 10)
    assert int(hidden.sum()) == int(hidden[:10].sum()) == 4
