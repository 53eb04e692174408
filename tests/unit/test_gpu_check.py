"""The check of a machine's GPU, tried on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from openjepa.core.compute import ON_CPU, Compute

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import gpu_check


def test_without_a_gpu_it_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("no GPU was found")
    assert "--device cpu" in err


@pytest.mark.slow
def test_on_the_cpu_recipes_are_trained_evaluated_and_embed(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["t_jepa", "nano_jepa", "i_jepa"]
    assert gpu_check.main(["--device", "cpu", "--recipes", *names]) == 0
    out = capsys.readouterr().out
    for name in names:
        (line,) = [line for line in out.splitlines() if line.strip().startswith(f"{name} ") and "." in line]
        assert " 1.000000 " in line
    assert out.strip().endswith("cpu, fp32: passed")


def test_a_recipe_that_fails_or_is_off_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embedder_of, calls = gpu_check.embedder_of, []

    def off(experiment: object) -> object:
        calls.append(experiment)
        return (lambda inputs: -embedder_of(experiment)(inputs)) if len(calls) == 2 else embedder_of(experiment)  # ty: ignore

    monkeypatch.setattr(gpu_check, "embedder_of", off)
    assert gpu_check.main(["--device", "cpu", "--recipes", "simcse"]) == 1
    assert "cosine below 0.999" in capsys.readouterr().out

    def broken(assets: Path) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setitem(gpu_check.EVERY, "mlm", broken)
    assert gpu_check.main(["--device", "cpu", "--recipes", "mlm"]) == 1
    assert "RuntimeError: out of memory" in capsys.readouterr().out


def test_bf16_is_within_the_limit(tmp_path: Path) -> None:
    """The law that a GPU is held to, in the CPU's bf16."""
    compute = Compute(torch.device("cpu"), bf16=True)
    row = gpu_check.checked("t_jepa", gpu_check.EVERY["t_jepa"], compute, tmp_path)
    assert row.passed
    assert row.cosine < 1
    assert ON_CPU.bf16 is False
