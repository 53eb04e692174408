"""Networks of an evaluation: built one after the other, and what was built before is gone by then."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import torch

from openjepa.core.evaluating import once_per_method
from openjepa.core.experiment import Experiment
from openjepa.core.method import Method
from openjepa.core.tasks import Answers, Classification, Prediction
from openjepa.evals.networks import Networks
from openjepa.evals.suite import scorecard_of
from tests.tiny import build_vl


class Built:
    """Builds tiny networks and knows which of them still live."""

    def __init__(self, assets: Path) -> None:
        self.assets = assets
        self.run = build_vl(assets)
        self.order: list[str] = []
        self.living: list[list[str]] = []  # at each build, those that were built before
        self.known: dict[str, weakref.ref] = {}

    def other(self, name: str) -> Experiment:
        self.living.append([known for known, ref in self.known.items() if ref() is not None])
        self.order.append(name)
        experiment = build_vl(self.assets, "train_vision=false", "train_text=false", f"train.seed={len(self.order)}")
        self.known[name] = weakref.ref(experiment.method)
        return experiment

    def networks(self) -> Networks:
        return Networks(lambda: self.run, {name: lambda name=name: self.other(name) for name in ("init", "random")})


def test_of_initialisation_and_random_network_one_at_a_time_is_in_memory(tmp_path: Path) -> None:
    built = Built(tmp_path)
    images = [np.full((24, 24, 3), shade, dtype=np.uint8) for shade in range(0, 240, 8)]
    labels = [number % 2 for number in range(len(images))]
    asked: list[weakref.ref] = []

    def ask(method: Method) -> dict[str, Answers]:
        asked.append(weakref.ref(method))
        return {"told": Answers(np.ones(4), 0.0)}

    tasks = [Classification("shade", images, labels, images, labels, ("even", "odd")), Prediction("told", ask)]
    scorecard = scorecard_of(tasks, built.networks())
    assert set(scorecard.measures) == {"shade_knn", "shade_logistic", "told"}
    assert built.order == ["init", "random"]
    assert built.living == [[], []]  # the initialisation is gone when the random network is built
    assert asked[0]() is built.run.method


def test_networks_are_what_a_mapping_of_them_is(tmp_path: Path) -> None:
    built = Built(tmp_path)
    networks = built.networks()
    assert list(networks) == ["run", "init", "random"]
    assert networks["run"] is built.run
    assert networks["init"] is networks["init"]
    assert built.order == ["init"]


def test_what_is_remembered_of_a_method_keeps_it_not_alive() -> None:
    asked = []
    answer = once_per_method(lambda method: asked.append(None) or 5)
    first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    assert [answer(first), answer(second), answer(first)] == [5, 5, 5]
    assert len(asked) == 2
    gone = weakref.ref(first)
    del first
    assert gone() is None
