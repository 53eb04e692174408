"""What can be read off a network besides its embedding: each encoder, each layer, each way to pool the places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.layers import Layers
from openjepa.evals.attentive import Places
from openjepa.evals.features import by_length, embedder_of
from openjepa.models.transformer import mean_pool

AT_ONCE = 64  # inputs in a batch


class Point(NamedTuple):
    """One way to turn an input into features."""

    encoder: str  # e.g. student, teacher, projected; or `embedding`, what users get
    layer: int  # 0 = what the trunk reads
    pooling: str  # mean, max or attentive (learned)

    @property
    def name(self) -> str:
        return "embedding" if self == EMBEDDING else f"{self.encoder} layer {self.layer}, {self.pooling}"


EMBEDDING = Point("embedding", 0, "mean")


def pooled_features(experiment: Experiment, inputs: Sequence[Any]) -> dict[Point, np.ndarray]:
    """Every point without learned pooling: its features [N, D] float32, the embedding among them. One pass."""
    found: dict[Point, np.ndarray] = {}
    with evaluating(experiment.method):
        for rows, batch in _batches(experiment, inputs):
            vectors = {EMBEDDING: experiment.method.embed(batch)}
            for name, layers in _layers(experiment, batch).items():
                valid = layers.valid
                for number, state in enumerate(layers.states):
                    vectors[Point(name, number, "mean")] = mean_pool(state, valid)  # [B, D]
                    if state.shape[1] > 1:
                        largest = state.float().masked_fill(~valid[..., None], -torch.inf).amax(1)
                        vectors[Point(name, number, "max")] = largest  # [B, D]
            for point, part in vectors.items():
                features = found.setdefault(point, np.empty((len(inputs), part.shape[1]), dtype=np.float32))
                features[rows] = part.float().numpy()
    return found


def vectors_at(experiment: Experiment, inputs: Sequence[Any], point: Point, batch_size: int = AT_ONCE) -> np.ndarray:
    """[N, D] float32 at a point without learned pooling: for use, where an audit says that it is better.

    Raises UserError if the recipe has no such latents.
    """
    if point == EMBEDDING:
        return embedder_of(experiment, batch_size)(inputs)
    found = pooled_features(experiment, inputs)
    if point not in found:
        raise UserError(f"this run has no latents at {point.name}; it has: {', '.join(known.name for known in found)}")
    return found[point]


def place_features(experiment: Experiment, inputs: Sequence[Any], encoder: str, layer: int) -> Places:
    """Latents of all places [N, T, D] of one layer, in half precision: there may be a gigabyte of them."""
    parts: list[tuple[list[int], np.ndarray, np.ndarray]] = []
    with evaluating(experiment.method):
        for rows, batch in _batches(experiment, inputs):
            layers = _layers(experiment, batch)[encoder]
            parts.append((rows, layers.states[layer].half().numpy(), layers.valid.numpy()))
    longest = max(valid.shape[1] for _, _, valid in parts)
    latents = np.zeros((len(inputs), longest, parts[0][1].shape[2]), dtype=np.float16)
    exists = np.zeros(latents.shape[:2], dtype=bool)
    for rows, states, valid in parts:
        latents[rows, : valid.shape[1]], exists[rows, : valid.shape[1]] = states, valid
    return Places(latents, exists)


def point_features(experiment: Experiment, inputs: Sequence[Any], point: Point) -> Places:
    """The features of one point."""
    if point == EMBEDDING:
        return Places.single(embedder_of(experiment)(inputs))
    if point.pooling == "attentive":
        return place_features(experiment, inputs, point.encoder, point.layer)
    return Places.single(pooled_features(experiment, inputs)[point])


def _layers(experiment: Experiment, batch: Batch) -> dict[str, Layers]:
    if experiment.layers is None:
        raise UserError("this recipe does not say which layers it has (Experiment.layers), so none can be compared")
    return dict(experiment.layers(experiment.method, batch))


def _batches(experiment: Experiment, inputs: Sequence[Any]) -> Iterator[tuple[list[int], Batch]]:
    """Texts in order of length, each batch with the numbers of its inputs."""
    order = by_length(inputs)
    for start in range(0, len(order), AT_ONCE):
        rows = order[start : start + AT_ONCE]
        yield rows, experiment.prepare([inputs[i] for i in rows])
