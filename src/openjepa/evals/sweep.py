"""A sweep over encoder, layer and pooling: validation chooses, test evaluates the choice.

Every point (`evals.layers`) is probed by the same training (`evals.attentive`) on the same rows. The accuracies on
held-out *training* rows, averaged over the tasks, choose a point; only that one is evaluated on the test rows, next to
the same point of the run's initialisation and of a random one, the run's embedding and features without learning.
Attentive pooling is tried only on the best layer of each encoder, as it takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, FiniteFloat

from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.core.json_files import Whole, Written, read_json
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Classification, Task
from openjepa.evals.attentive import Positions, fit_probe
from openjepa.evals.baselines import majority
from openjepa.evals.features import input_key
from openjepa.evals.layers import EMBEDDING, Point, point_features, pooled_features, position_features
from openjepa.evals.probes import HELD_OUT
from openjepa.evals.scorecard import LEVEL, Measure, Scorecard, ScorecardFile
from openjepa.evals.scores import Score, difference_interval

Features = Callable[[Sequence[Any]], Positions]
OnProbe = Callable[[int, int, str], None]  # probes done, total number of probes, and the name of the current one


@dataclass(frozen=True)
class Sweep:
    """Validation accuracy of every point on every task, the chosen point, and its scorecard on test."""

    points: dict[Point, dict[str, float]]  # in [0, 1], by task
    chosen: Point
    test: Scorecard  # of the chosen point; `embedding` is the run's embedding under the same probe

    def mean(self, point: Point) -> float:
        """Mean validation accuracy of a point over all tasks, by which a point is chosen."""
        return _mean(self.points[point])

    def to_json(self) -> dict[str, Any]:
        """JSON: the chosen point; {encoder, layer, pooling, validation, tasks} of each; the scorecard of the test."""
        rows = [
            {**point._asdict(), "validation": self.mean(point), "tasks": tasks} for point, tasks in self.points.items()
        ]
        chosen = {**self.chosen._asdict(), "validation": self.mean(self.chosen)}
        return {"chosen": chosen, "points": rows, "test": self.test.to_json()}


class SweptPoint(Written):
    """A point in JSON, with its mean accuracy on validation."""

    encoder: str
    layer: Whole
    pooling: str
    validation: FiniteFloat


class SweepFile(Written):
    """The JSON of a sweep."""

    chosen: SweptPoint
    points: Annotated[list[SweptPoint], Field(min_length=1)]
    test: ScorecardFile


def best_vectors(file: Path) -> Point:
    """The best point on validation, in the JSON file of a sweep, without attentive pooling.

    Attentive pooling has no vectors: it ends in a probe for the labels of the sweep. Raises UserError if the file is
    damaged.
    """
    rows = [row for row in read_json(file, SweepFile)["points"] if row["pooling"] != "attentive"]
    if not rows:
        raise UserError(f"{file} has no point but those of attentive pooling, which has no vectors; sweep again")
    best = max(rows, key=lambda row: row["validation"])
    return Point(best["encoder"], best["layer"], best["pooling"])


@dataclass(frozen=True)
class _Group:
    """Tasks with different labels on the same inputs."""

    tasks: list[Classification]
    held_out: np.ndarray  # [N] bool, training rows for validation

    @property
    def classes(self) -> list[int]:
        return [len(task.classes) for task in self.tasks]

    def labels(self, part: str) -> np.ndarray:
        """[N, K] int64 of `train` or `test`."""
        return np.stack([np.asarray(getattr(task, f"{part}_labels"), dtype=np.int64) for task in self.tasks], 1)

    def validate(self, features: Positions, seed: int) -> dict[str, float]:
        _, accuracy = fit_probe(features, self.labels("train"), self.classes, self.held_out, seed)
        return {task.name: float(value) for task, value in zip(self.tasks, accuracy, strict=True)}

    def test(self, features: Features, seed: int) -> dict[str, Score]:
        """Test scores of the probe fitted on train."""
        first = self.tasks[0]
        probe, _ = fit_probe(features(first.train), self.labels("train"), self.classes, self.held_out, seed)
        right = probe.right(features(first.test), self.labels("test"))  # [N, K]
        return {
            task.name: Score(right[:, k], majority(task.train_labels, task.test_labels))
            for k, task in enumerate(self.tasks)
        }


def sweep(
    tasks: Sequence[Task], networks: Mapping[str, Experiment], seed: int = 0, on_probe: OnProbe | None = None
) -> Sweep:
    """Sweep the network `run` over `tasks` (classifications; others are ignored), then test the best point.

    `networks` are those of a scorecard: run, init and random. `on_probe` is called before each probe that is fitted.
    Raises UserError if there is nothing to classify, or if the recipe does not say which encoders it has.
    """
    groups = _groups([task for task in tasks if isinstance(task, Classification)], seed)
    run = networks["run"]
    count = _Probes(len(groups), len(networks) + 1 + len(run.baselines), on_probe)
    points: dict[Point, dict[str, float]] = {}
    for group in groups:
        pooled = pooled_features(run, group.tasks[0].train)
        count.points = list(pooled)
        for point, vectors in pooled.items():
            count.begin(point.name)
            points.setdefault(point, {}).update(group.validate(Positions.single(vectors), seed))
    for point in _best_layers(points):
        points[point] = {}
        for group in groups:
            count.begin(point.name)
            positions = position_features(run, group.tasks[0].train, point.encoder, point.layer)
            points[point] |= group.validate(positions, seed)
    chosen = max(points, key=lambda point: _mean(points[point]))
    return Sweep(points, chosen, _tested(groups, networks, chosen, seed, count))


@dataclass
class _Probes:
    """Counts the probes of a sweep: one a point and group of tasks, and one a column of the test."""

    groups: int
    columns: int
    on_probe: OnProbe | None
    points: Sequence[Point] = ()
    begun: int = 0

    def begin(self, what: str) -> None:
        """Report that the next probe is being fitted."""
        attentive = {p.encoder for p in self.points if p.pooling == "max"}  # one more each, on the best layer
        total = self.groups * (len(self.points) + len(attentive) + self.columns)
        if self.on_probe is not None:
            self.on_probe(self.begun, total, what)
        self.begun += 1


def _tested(
    groups: Sequence[_Group], networks: Mapping[str, Experiment], chosen: Point, seed: int, count: _Probes
) -> Scorecard:
    columns: dict[str, Features] = {
        name: (lambda inputs, name=name: point_features(networks[name], inputs, chosen)) for name in networks
    }
    run = networks["run"]
    columns["embedding"] = lambda inputs: point_features(run, inputs, EMBEDDING)
    for name, embed in run.baselines.items():
        columns[name] = lambda inputs, embed=embed: Positions.single(embed(inputs))
    scores: dict[str, dict[str, Score]] = {}
    for name, features in columns.items():
        scores[name] = {}
        for group in groups:
            count.begin(f"on test: {name}")
            scores[name] |= group.test(features, seed)
    measures = {}
    for task, score in scores["run"].items():
        interval = difference_interval(score, scores["init"][task], generator_for(seed, "audit", task), level=LEVEL)
        measures[task] = Measure({name: found[task].value for name, found in scores.items()}, score.chance, interval)
    return Scorecard(measures)


def _groups(tasks: Sequence[Classification], seed: int) -> list[_Group]:
    if not tasks:
        raise UserError("a sweep needs labels to predict: set data.label (the worlds and image folders have some)")
    by_inputs: dict[Any, list[Classification]] = {}
    for task in tasks:
        by_inputs.setdefault((input_key(task.train), input_key(task.test)), []).append(task)
    return [_Group(group, _validation_rows(len(group[0].train), seed)) for group in by_inputs.values()]


def _validation_rows(count: int, seed: int) -> np.ndarray:
    """[count] bool, True on the validation rows."""
    if count < 2:
        raise UserError("a sweep needs two training inputs at least: one for training and one for validation")
    order = torch.randperm(count, generator=generator_for(seed, "audit", "validation")).numpy()
    held_out = np.zeros(count, dtype=bool)
    held_out[order[: max(1, round(HELD_OUT * count))]] = True
    return held_out


def _best_layers(points: Mapping[Point, Mapping[str, float]]) -> list[Point]:
    """For each encoder with more than one position, attentive pooling of the layer that is best without it."""
    best: dict[str, tuple[float, Point]] = {}
    for point, accuracies in points.items():
        several = Point(point.encoder, point.layer, "max") in points
        value = _mean(accuracies)
        if several and value > best.get(point.encoder, (-1.0, point))[0]:
            best[point.encoder] = value, Point(point.encoder, point.layer, "attentive")
    return [point for _, point in best.values()]


def _mean(accuracies: Mapping[str, float]) -> float:
    """Mean over all tasks, by which a point is chosen."""
    return float(np.mean(list(accuracies.values())))
