"""On a GPU no training step waits for the device, and nothing mixes devices: shown on a device without values."""

from __future__ import annotations

import traceback
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor

from openjepa.core.compute import Compute
from openjepa.core.experiment import Experiment
from openjepa.core.tasks import Prediction, Retrieval, Task
from openjepa.data.loading.loader import train_batches
from openjepa.evals.features import embedder_of
from openjepa.evals.layers import pooled_features
from openjepa.evals.suite import score_column
from openjepa.models import packing
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.transformer import TextEncoder
from tests.every import EVERY
from tests.fake_device import DEVICE, WAITS, FakeDevice, autocast_knows_it

# forward passes that still wait, and where: boolean indexing by a mask that is no field of the batch, or not by `pick`,
# see docs/decisions; latents that are kept on the CPU by the content of their tokens. Whoever mends one takes it out.
STILL_WAIT = {"next_token": "next_token.py", "concept_jepa": "sentence_latents.py"}


@pytest.fixture(scope="module", params=EVERY)
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Experiment]:
    return request.param, EVERY[request.param](tmp_path_factory.mktemp("assets"))


def position_of(error: BaseException) -> str:
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "openjepa" in frame.filename]
    return Path(ours[-1].filename).name


def test_the_training_forward_waits_for_nothing(named: tuple[str, Experiment]) -> None:
    name, experiment = named
    batch = replace(next(islice(train_batches(experiment, 0), 1, None)).indexed(), draw=1)
    with FakeDevice.on() as device:
        method, moved = device.module(experiment.method).train(), device.batch(batch)
        waits_in = None
        try:
            assert method(moved).loss.device == DEVICE
        except WAITS as error:
            waits_in = position_of(error)
        assert waits_in == STILL_WAIT.get(name)
        assert method.embed(moved).device == DEVICE


def test_a_batch_takes_along_where_its_masks_are_true(named: tuple[str, Experiment]) -> None:
    batch = next(train_batches(named[1], 0))
    known = MixedPrecision("bf16-mixed", "cpu").convert_input(batch.indexed())  # as Fabric hands it to the method
    masks = [x for part in (known, *vars(known).values()) if is_dataclass(part) for x in vars(part).values()]
    for mask in masks:
        if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.ndim == 2:
            assert any(mask is selection.mask for selection in known.selections)
            x = torch.randn(*mask.shape, 3)
            assert torch.equal(known.pick(x, mask), x[mask])
    other = torch.rand(4, 5) > 0.5
    assert torch.equal(known.pick(torch.arange(20).view(4, 5), other), torch.arange(20).view(4, 5)[other])


def test_pinned_batches_are_whole() -> None:
    """Every tensor is asked to be pinned, the positions of the masks too."""
    asked: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "pin_memory", lambda tensor: asked.append(tensor) or tensor)
        batch: Any = next(train_batches(EVERY["i_jepa"](Path("unused")), 0))
        pinned = batch.pin_memory()
    tensors = [x for f in fields(batch) if isinstance(x := getattr(pinned, f.name), Tensor)]
    assert len(asked) == len(tensors) + len(pinned.selections)
    assert torch.equal(pinned.pick(pinned.hidden_at, pinned.hidden_valid), batch.hidden_at[batch.hidden_valid])


def test_rows_are_packed_on_the_cpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and those of transformers; padding changes no latent, so both ways give the same ones."""
    from transformers import BertConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertConfig(vocab_size=50, max_position_embeddings=64, **sizes).save_pretrained(tmp_path)
    encoders = [PretrainedEncoder(str(tmp_path), weights=False).eval(), TextEncoder(50, 16, 2, 2, 64).eval()]
    lengths = torch.tensor([2, 3, 2, 40, 2, 2] * 8)
    valid = torch.arange(40)[None, :] < lengths[:, None]  # [48, 40]
    ids = torch.randint(50, valid.shape, generator=torch.Generator().manual_seed(0))
    assert packing.packing_of(None, valid) is not None
    assert encoders[0].packing(valid) is not None
    with torch.no_grad():
        packed = [encoder(ids, valid)[valid] for encoder in encoders]
        monkeypatch.setattr(packing, "PACKING_DEVICES", frozenset())
        assert encoders[0].packing(valid) is None
        padded = [encoder(ids, valid)[valid] for encoder in encoders]
    for one, other in zip(packed, padded, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    monkeypatch.undo()
    with FakeDevice.on() as device:
        for encoder in encoders:
            assert device.module(encoder)(device.tensor(ids), device.tensor(valid)).device == DEVICE


@pytest.mark.parametrize("name", ["t_jepa", "nano_jepa", "vl_jepa", "vl_jepa, frozen"])
def test_inputs_and_network_meet_on_one_device(name: str, tmp_path: Path) -> None:
    """All that evaluations do before they fetch a result is done where the network is."""
    experiment = EVERY[name](tmp_path)
    tasks = [task for task in experiment.tasks() if isinstance(task, Prediction | Retrieval)]
    inputs: list[Any] = ["a short text", "the wind in the trees"]
    if name.startswith("vl"):
        inputs = [torch.zeros(24, 24, 3, dtype=torch.uint8).numpy()] * 2
    experiment = experiment.on(Compute(DEVICE))
    embed = embedder_of(experiment)

    def score(task: Task) -> None:
        score_column([task], "run", embed, experiment.method, experiment.compute)

    asked = [lambda: embed(inputs), lambda: pooled_features(experiment, inputs)]
    asked += [lambda task=task: score(task) for task in tasks]
    with autocast_knows_it():
        for ask in asked:
            with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
                ask()
