"""Features of a network besides its embedding: each encoder, each layer, each pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.data.text.inputs import ReadingReport
from openjepa.evals.attentive import Positions
from openjepa.evals.features import embedder_of
from openjepa.evals.input_rows import BATCH_TOKENS, InputRows
from openjepa.models.pooling import pooled


@dataclass(frozen=True)
class Layers:
    """Latents of one encoder for one batch."""

    states: Sequence[Tensor]  # layers x [B, T, D]: the trunk's input first, the encoder's output last
    valid: Tensor | None  # [B, T] bool, False on padding; None = every position is real


class Point(NamedTuple):
    """One way to turn an input into features."""

    encoder: str  # e.g. student, teacher, projected; or `embedding`
    layer: int  # 0 = the trunk's input
    pooling: str  # mean, max or attentive (learned)

    @property
    def name(self) -> str:
        return "embedding" if self == EMBEDDING else f"{self.encoder} layer {self.layer}, {self.pooling}"


EMBEDDING = Point("embedding", 0, "mean")


def pooled_features(
    experiment: Experiment, inputs: Sequence[Any], report: ReadingReport | None = None, encoder: str | None = None
) -> dict[Point, np.ndarray]:
    """Features [N, D] float32 of every point without learned pooling, the embedding included, in one pass.

    Of a text in several windows, the mean weighted by tokens, or the largest of all. `report` as for `embed_all`. With
    `encoder`, only the points of that one: no other network is run.
    """
    read = InputRows.of(experiment.embedding.inputs, inputs, report)
    found: dict[Point, np.ndarray] = {}
    with evaluating(experiment.method, experiment.compute):
        for rows, batch in read.batches():
            for point, part in _vectors(experiment, batch.to(experiment.compute.device), encoder).items():
                features = found.setdefault(point, np.empty((len(read.rows), part.shape[1]), dtype=np.float32))
                features[rows] = part.float().cpu().numpy()
    return {p: read.largest(x) if p.pooling == "max" else read.means(x) for p, x in found.items()}


def vectors_at(
    experiment: Experiment,
    inputs: Sequence[Any],
    point: Point,
    batch_tokens: int = BATCH_TOKENS,
    report: ReadingReport | None = None,
) -> np.ndarray:
    """[N, D] float32 at a point without learned pooling, such as the best one of a sweep.

    `report` as for `embed_all`. Raises UserError if the recipe has no such latents.
    """
    if point == EMBEDDING:
        return embedder_of(experiment, batch_tokens, report)(inputs)
    found = pooled_features(experiment, inputs, report, point.encoder)
    if point not in found:
        known = ", ".join(other.name for other in pooled_features(experiment, inputs[:1]))
        raise UserError(f"this run has no latents at {point.name}; it has: {known}")
    return found[point]


def position_features(experiment: Experiment, inputs: Sequence[Any], encoder: str, layer: int) -> Positions:
    """Latents of all positions [N, T, D] of one layer, in half precision to save memory.

    The windows of a long text are concatenated.
    """
    read = InputRows.of(experiment.embedding.inputs, inputs)
    parts: list[np.ndarray] = [np.empty(0)] * len(read.rows)  # [R] of [L_i, D]
    with evaluating(experiment.method, experiment.compute):
        for rows, batch in read.batches():
            layers = _layers(experiment, batch.to(experiment.compute.device), encoder)[encoder]
            states = layers.states[layer].half().cpu().numpy()  # [B, T, D]
            valid = np.ones(states.shape[:2], dtype=bool) if layers.valid is None else layers.valid.cpu().numpy()
            for row, state, real in zip(rows, states, valid, strict=True):
                parts[row] = state[real]
    lengths = np.bincount(read.owner, [len(part) for part in parts], minlength=len(inputs)).astype(np.int64)  # [N]
    latents = np.zeros((len(inputs), lengths.max(), parts[0].shape[1]), dtype=np.float16)
    filled = np.zeros(len(inputs), dtype=np.int64)
    for owner, part in zip(read.owner, parts, strict=True):
        latents[owner, filled[owner] : filled[owner] + len(part)] = part
        filled[owner] += len(part)
    return Positions(latents, np.arange(latents.shape[1]) < lengths[:, None])


def point_features(experiment: Experiment, inputs: Sequence[Any], point: Point) -> Positions:
    """The features of one point."""
    if point == EMBEDDING:
        return Positions.single(embedder_of(experiment)(inputs))
    if point.pooling == "attentive":
        return position_features(experiment, inputs, point.encoder, point.layer)
    return Positions.single(pooled_features(experiment, inputs, encoder=point.encoder)[point])


def _vectors(experiment: Experiment, batch: Batch, encoder: str | None) -> dict[Point, Tensor]:
    """Features [B, D] of one batch at every point without learned pooling, with the embedding; or of one encoder."""
    vectors = {EMBEDDING: experiment.method.embed(batch)} if encoder is None else {}
    for name, layers in _layers(experiment, batch, encoder).items():
        for number, state in enumerate(layers.states):
            vectors[Point(name, number, "mean")] = pooled(state, layers.valid, "mean")
            if state.shape[1] > 1:
                vectors[Point(name, number, "max")] = pooled(state, layers.valid, "max")
    return vectors


def _layers(experiment: Experiment, batch: Batch, only: str | None) -> dict[str, Layers]:
    """Latents of all encoders with the modality of the embedding's encoder, or of `only` one of them."""
    encoders = experiment.method.encoders()
    embedding = experiment.embedding
    if embedding.encoder_inputs is None or embedding.encoder not in encoders:
        raise UserError(
            "this recipe does not say which encoders it has and what they read (Method.encoders and "
            "Embedding.encoder_inputs), so no layers can be compared"
        )
    arguments, valid = embedding.encoder_inputs(batch)
    modality = encoders[embedding.encoder].modality
    return {
        name: Layers(encoder.states(*arguments), valid)
        for name, encoder in encoders.items()
        if encoder.modality == modality and only in (None, name)
    }
