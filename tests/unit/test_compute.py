"""Devices and precisions by name, and that every verb uses the one it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import openjepa
from openjepa import api
from openjepa.cli import main
from openjepa.core.compute import ON_CPU, Compute, compute_for, device_of
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.evals.features import cosine_rows, embedder_of
from openjepa.evals.layers import pooled_features
from openjepa.run import vectors as run_vectors
from tests.tiny import NANO, TINY

CPU = torch.device("cpu")
TEXTS = ["A cook made a soup.", "The train was late.", "Two friends walked home."]
BRIEF = ("train.steps=4", "train.warmup_steps=1", "train.health_samples=32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return api.train("t_jepa", out=folder, overrides=[*TINY, *BRIEF], progress=False)


def test_auto_is_the_cpu_in_fp32_where_there_is_no_gpu() -> None:
    assert compute_for() == ON_CPU == Compute(CPU, bf16=False)
    assert compute_for("cpu", "bf16") == Compute(CPU, bf16=True)


def test_auto_is_a_gpu_in_bf16_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert compute_for() == Compute(torch.device("cuda"), bf16=True)
    assert compute_for("cuda:1", "32") == Compute(torch.device("cuda:1"), bf16=False)
    assert compute_for("cpu") == ON_CPU
    with pytest.raises(UserError, match="2 CUDA devices, cuda:0 to cuda:1"):
        compute_for("cuda:2")


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("cuda", "auto", "no CUDA device on this machine; give auto or cpu"),
        ("cuda:3", "auto", "no CUDA device"),
        ("mps", "auto", "no Apple GPU"),
        ("gpu", "auto", "device=gpu: no such device; give auto, cpu, cuda"),
        ("cpu:1", "auto", "no such device"),
        ("cuda:-1", "auto", "no such device"),
        ("cpu", "fp16", "precision=fp16: no such precision; give auto, 32, bf16"),
    ],
)
def test_what_does_not_exist_is_one_line(device: str, precision: str, said: str, run: api.Run) -> None:
    for ask in (compute_for, lambda *given: openjepa.load(run.path, *given), run.to):
        with pytest.raises(UserError, match=said) as error:
            ask(device, precision)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("verb", ["eval", "similar", "embed", "readout", "demo", "report", "check"])
def test_every_verb_refuses_a_device_that_is_not_there(
    verb: str, run: api.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("a text\n")
    more = {
        "similar": ["one text", "another"],
        "embed": [str(tmp_path / "texts.txt"), "--out", str(tmp_path / "v.npy")],
    }.get(verb, [])
    target = "t_jepa" if verb == "check" else str(run.path)
    assert main([verb, target, *more, "--device", "cuda:7"]) == 2
    said = capsys.readouterr().err.strip()
    assert said == "openjepa: device=cuda:7: there is no CUDA device on this machine; give auto or cpu"
    assert main([verb, target, *more, "--precision", "64"]) == 2


def test_precision_reaches_the_network_everywhere(run: api.Run) -> None:
    """bf16 is near fp32 (cosine at least 0.999) and not it; fp32 is the same bit for bit."""

    def swept(opened: api.Run) -> np.ndarray:
        return np.concatenate(list(pooled_features(opened.experiment, TEXTS).values()))

    def initial(opened: api.Run) -> np.ndarray:
        return embedder_of(opened.networks()["init"])(TEXTS)

    for ask in (lambda opened: opened.encode(TEXTS), swept, initial):
        exact, near = ask(run), ask(run.to(precision="bf16"))
        assert exact.dtype == near.dtype == np.float32
        assert (cosine_rows(exact, near) >= 0.999).all()
        assert not np.array_equal(exact, near)
        np.testing.assert_array_equal(exact, ask(run.to("cpu", "32")))


class Seen(nn.Module):
    """Notes in which precision products are made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_evaluating_is_in_the_precision_of_its_compute() -> None:
    module, x = Seen(), torch.randn(2, 4)
    with evaluating(module):
        assert module(x).dtype == torch.float32
    with evaluating(module, Compute(CPU, bf16=True)):
        assert module(x).dtype == torch.bfloat16
    assert module(x).dtype == torch.float32
    assert device_of(module) == device_of(nn.Identity()) == CPU


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each network that was run, whether it was in bf16: by autocast, or with its weights in bf16 (on the CPU)."""
    seen: list[bool] = []
    autocast, with_bf16_weights = Compute.autocast, run_vectors.with_bf16_weights

    def noting(compute: Compute) -> Any:
        if compute is not ON_CPU:  # the compute of a network with bf16 weights, which is noted below
            seen.append(compute.bf16)
        return autocast(compute)

    def noting_weights(experiment: Experiment) -> Experiment:
        seen.append(True)
        return with_bf16_weights(experiment)

    monkeypatch.setattr(Compute, "autocast", noting)
    monkeypatch.setattr(run_vectors, "with_bf16_weights", noting_weights)
    return seen


@pytest.mark.slow
def test_verbs_run_their_networks_as_they_are_told(
    tmp_path: Path, in_bf16: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "nano")
    api.train("nano_jepa", out=folder, overrides=[*NANO, *BRIEF], progress=False)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    commands = {
        "eval": [folder],
        "similar": [folder, *TEXTS, "--background", str(tmp_path / "texts.txt")],
        "embed": [folder, str(tmp_path / "texts.txt"), "--out", str(tmp_path / "v.npy")],
        "readout": [folder, "steps=2", "eval_batches=1", "dim=16"],
        "report": [folder],
        "check": ["nano_jepa", *NANO],
    }
    for verb, words in commands.items():
        in_bf16.clear()
        code = main([verb, *words, "--device", "cpu", "--precision", "bf16"])
        assert code == 0 or verb == "check", capsys.readouterr().err
        assert in_bf16, verb
        assert all(in_bf16), verb


def test_the_run_that_training_returns_stays_where_it_was_trained(run: api.Run) -> None:
    assert run.device == "cpu"
    assert openjepa.load(run.path).device == "auto"
    assert run.to().compute == ON_CPU
