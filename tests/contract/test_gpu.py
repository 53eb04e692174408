"""What is different on a GPU, on one: `pytest -m gpu`, or all of it with figures, `python benchmarks/gpu_check.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa import api
from openjepa.cli import main
from openjepa.core.compute import ON_CPU, Compute, compute_for
from openjepa.core.errors import TrainingStopped
from openjepa.core.json_files import read_jsonl
from openjepa.data.loading.loader import train_batches
from openjepa.evals.features import cosine_rows, embedder_of
from openjepa.evals.layers import pooled_features
from openjepa.models.packing import packing_of
from openjepa.training.finite import FiniteGuard
from tests.contract.test_embedding import inputs_of
from tests.every import EVERY
from tests.gpu import CUDA, requires_gpu
from tests.tiny import TINY

COSINE = 0.999  # least, between a vector in bf16 on the GPU and in fp32 on the CPU
ON_GPU = [setting for setting in TINY if not setting.startswith(("train.accelerator", "train.precision"))]


@requires_gpu
def test_auto_is_the_gpu() -> None:
    assert compute_for().device.type == "cuda"
    assert compute_for().bf16 == torch.cuda.is_bf16_supported(including_emulation=False)


@requires_gpu
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("bf16", [False, True])
def test_embeddings_are_those_of_the_cpu(name: str, bf16: bool, tmp_path: Path) -> None:
    experiment = EVERY[name](tmp_path)
    inputs = inputs_of(experiment)
    expected, layers = embedder_of(experiment)(inputs), pooled_features(experiment, inputs)
    moved = experiment.on(Compute(CUDA, bf16))
    found = embedder_of(moved)(inputs)
    real = np.linalg.norm(expected, axis=1) > 0  # an empty text has no direction
    assert (cosine_rows(found, expected)[real] >= COSINE).all()
    for point, vectors in pooled_features(moved, inputs).items():
        assert (cosine_rows(vectors, layers[point])[real] >= COSINE).all(), point
    moved.on(ON_CPU)


@requires_gpu
@pytest.mark.parametrize("name", EVERY)
def test_the_loss_is_that_of_the_cpu_and_padding_is_not_packed(name: str, tmp_path: Path) -> None:
    experiment = EVERY[name](tmp_path)
    batch = next(train_batches(experiment, 0))
    method = experiment.method.eval()  # no dropout
    expected = float(method(batch).loss.detach())
    method.to(CUDA)
    assert float(method(batch.to(CUDA)).loss.detach()) == pytest.approx(expected, rel=1e-3)
    assert packing_of(None, torch.zeros(4, 100, dtype=torch.bool, device=CUDA)) is None


@requires_gpu
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_pinned_and_move_without_blocking(workers: int, tmp_path: Path) -> None:
    experiment = EVERY["i_jepa"](tmp_path)
    batch = next(train_batches(experiment, 0, pin=True))
    assert batch.keys.is_pinned()
    assert batch.selections
    assert all(selection.index.is_pinned() for selection in batch.selections)
    moved = batch.to(CUDA)
    x = torch.randn(*moved.hidden_valid.shape, 3, device=CUDA)  # ty: ignore[unresolved-attribute]
    assert torch.equal(moved.pick(x, moved.hidden_valid), x[moved.hidden_valid])  # ty: ignore[unresolved-attribute]


@requires_gpu
@pytest.mark.parametrize("name", ["i_jepa", "lejepa", "vl_jepa", "mlm", "simcse", "simclr"])
def test_a_training_forward_waits_for_nothing(name: str, tmp_path: Path) -> None:
    """torch itself raises at any wait; see test_no_waiting for recipes that still have one."""
    experiment = EVERY[name](tmp_path)
    batch = next(train_batches(experiment, 0)).to(CUDA)
    batch.draw = 1
    method = experiment.method.to(CUDA).train()
    method(batch)  # kernels and tables are made
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        method(batch).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@requires_gpu
def test_a_non_finite_gradient_is_never_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = FiniteGuard.check
    monkeypatch.setattr(
        FiniteGuard, "check", lambda self, norm, *rest: check(self, norm * math.nan if rest[1] == 2 else norm, *rest)
    )
    settings = ("train.steps=10", "train.log_every=5", "train.warmup_steps=1", "train.precision=bf16-mixed")
    with pytest.raises(TrainingStopped, match="non-finite gradient at step 2"):
        api.train("t_jepa", out=tmp_path / "run", overrides=[*ON_GPU, *settings], progress=False)


@requires_gpu
def test_a_run_is_trained_and_used_on_the_gpu_by_every_verb(tmp_path: Path) -> None:
    run = tmp_path / "run"
    brief = ("train.steps=20", "train.warmup_steps=5", "train.health_samples=64", "train.precision=bf16-mixed")
    trained = api.train("lang_jepa", out=run, overrides=[*ON_GPU, *brief], progress=False)
    assert trained.experiment.compute.device.type == "cuda"
    assert all(math.isfinite(row["loss"]) for row in read_jsonl(run / "metrics.jsonl"))
    (tmp_path / "texts.txt").write_text("A cook made a soup.\nThe train was late.\n")
    verbs = [
        ["eval", str(run)],
        ["eval", str(run), "--sweep"],
        ["similar", str(run), "one text", "another text"],
        ["embed", str(run), str(tmp_path / "texts.txt"), "--out", str(tmp_path / "v.npy")],
        ["readout", str(run), "steps=5", "eval_batches=1"],
        ["report", str(run)],
        ["check", "lang_jepa", "--device", "cuda", *ON_GPU],
    ]
    for words in verbs:
        assert main(words) == 0, words
    np.testing.assert_allclose(
        np.load(tmp_path / "v.npy"), trained.encode(["A cook made a soup.", "The train was late."])
    )


@requires_gpu
def test_two_gpus_are_as_one(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    folders = [tmp_path / "one", tmp_path / "two"]
    brief = ("train.steps=5", "train.warmup_steps=1", "train.health_samples=32", "train.log_every=1")
    for devices, folder in enumerate(folders, start=1):
        words = ["train", "t_jepa", "--out", str(folder), *ON_GPU, *brief, f"train.devices={devices}"]
        assert main(words) == 0
    one, two = ([row["loss"] for row in read_jsonl(folder / "metrics.jsonl")] for folder in folders)
    assert one == pytest.approx(two, rel=1e-2)
