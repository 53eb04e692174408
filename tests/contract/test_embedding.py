"""What a recipe says of its embedding is what it does: the description alone gives the vectors of `Method.embed`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openjepa.core.encoder import Encoder
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.data.text.inputs import TextInputs
from openjepa.evals.features import embed_all
from openjepa.evals.layers import EMBEDDING, Point, pooled_features
from openjepa.models.pooling import described_vectors, pooled
from tests.every import EVERY

TEXTS = ["Tom has 3 beads. He finds 2 more beads.", "The wind.", "", "a much longer text " * 4]
PREDICTED = {"vl_jepa, frozen"}  # what no encoder's states are


@pytest.fixture(scope="module", params=EVERY)
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Experiment]:
    return request.param, EVERY[request.param](tmp_path_factory.mktemp("assets"))


def inputs_of(experiment: Experiment) -> list[Any]:
    if isinstance(experiment.embedding.inputs, TextInputs):
        return TEXTS
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(4)]


def test_the_description_alone_gives_the_embedding(named: tuple[str, Experiment]) -> None:
    name, experiment = named
    embedding, method = experiment.embedding, experiment.method
    batch = embedding.inputs(inputs_of(experiment))
    assert (embedding.pooling == "predicted") == (name in PREDICTED)
    if embedding.pooling == "predicted":
        with evaluating(method):
            alone = pooled(method.encoders()[embedding.encoder](batch.images), None, "mean")  # ty: ignore
            assert not torch.allclose(method.embed(batch), alone)  # not the encoder's: the note says whose
        assert "predictor" in embedding.words
        return
    with evaluating(method):
        described = described_vectors(embedding, method.encoders()[embedding.encoder], batch)
        assert torch.equal(method.embed(batch), described)


def test_a_frozen_vision_encoder_is_named_and_its_predictor_makes_the_vector(tmp_path: Path) -> None:
    experiment = EVERY["vl_jepa, frozen"](tmp_path)
    batch = experiment.embedding.inputs(inputs_of(experiment))
    with evaluating(experiment.method):
        before = experiment.method.embed(batch)
        experiment.method.predictor.leave.bias.add_(1.0)  # ty: ignore
        assert torch.allclose(experiment.method.embed(batch), before + 1, atol=1e-5)


def test_encoders_are_what_the_protocol_says(named: tuple[str, Experiment]) -> None:
    _, experiment = named
    encoders = experiment.method.encoders()
    assert experiment.embedding.encoder in encoders
    assert experiment.embedding.encoder_inputs is not None
    batch = experiment.embedding.inputs(inputs_of(experiment))
    arguments, valid = experiment.embedding.encoder_inputs(batch)
    reads = encoders[experiment.embedding.encoder].modality
    for name, encoder in encoders.items():
        assert isinstance(encoder, Encoder), name
        assert encoder.modality in ("text", "image")
        if encoder.modality == reads:
            with evaluating(experiment.method):
                states, last = encoder.states(*arguments), encoder(*arguments)
            assert torch.equal(states[-1], last)
            assert last.shape[2] == encoder.dim
            assert last.shape[1] <= encoder.max_len
            assert valid is None or valid.shape == last.shape[:2]
    text = isinstance(experiment.embedding.inputs, TextInputs)
    assert reads == ("text" if text else "image")
    assert (experiment.embedding.tokenizer is not None) == text


def test_causal_is_said_where_no_position_reads_a_later_one(named: tuple[str, Experiment]) -> None:
    _, experiment = named
    embedding = experiment.embedding
    if not isinstance(embedding.inputs, TextInputs):
        assert not embedding.causal
        return
    assert embedding.encoder_inputs is not None
    batch: Any = embedding.inputs(["Tom has 3 beads and 2 more beads ."])
    ids = batch.ids.clone()
    last = int(batch.valid.sum()) - 1
    ids[:, last] = (ids[:, last] + 1) % ids.max()
    encoder = experiment.method.encoders()[embedding.encoder]
    with evaluating(experiment.method):
        first, second = (encoder(*embedding.encoder_inputs(b).arguments) for b in (batch, replace(batch, ids=ids)))
    assert torch.allclose(first[:, 0], second[:, 0], atol=1e-7) == embedding.causal


def test_the_sweep_has_the_described_point(named: tuple[str, Experiment]) -> None:
    _, experiment = named
    embedding, inputs = experiment.embedding, inputs_of(experiment)
    found = pooled_features(experiment, inputs)
    np.testing.assert_array_equal(found[EMBEDDING], embed_all(experiment.method, embedding.inputs, inputs))
    text = {name for name, encoder in experiment.method.encoders().items() if encoder.modality == "text"}
    swept = {point.encoder for point in found} - {EMBEDDING.encoder}
    is_text = isinstance(embedding.inputs, TextInputs)
    assert swept == (text if is_text else set(experiment.method.encoders()) - text)
    last = max(point.layer for point in found if point.encoder == embedding.encoder)
    if embedding.pooling == "mean":
        np.testing.assert_allclose(found[Point(embedding.encoder, last, "mean")], found[EMBEDDING], atol=1e-6)
