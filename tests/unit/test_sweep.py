"""The sweep: every point is asked, validation chooses, and only the chosen one meets the test rows."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from openjepa.cli.progress import ProbeProgress
from openjepa.core.embedding import Embedding
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.core.tasks import Classification, Triplets
from openjepa.evals import attentive
from openjepa.evals.layers import EMBEDDING, Point, pooled_features, position_features
from openjepa.evals.sweep import sweep
from tests.tiny import build_image, build_tiny, build_views

TEXTS = [f"the {'cook' if i % 2 else 'sailor'} saw {'a' * (i % 5 + 1)} {i}" for i in range(40)]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attentive, "EPOCHS", 6)


def colours(experiment: Experiment) -> Classification:
    """Which of two tints has a noisy image?"""
    draw = np.random.default_rng(0)
    labels = [i % 2 for i in range(60)]
    tints = [(90, 120, 90 + 60 * label) for label in labels]
    images = [draw.normal(tint, 20, (24, 24, 3)).clip(0, 255).astype(np.uint8) for tint in tints]
    return Classification("tint", images[:40], labels[:40], images[40:], labels[40:], ("green", "blue"))


def networks(build: Any) -> dict[str, Experiment]:
    return {name: build() for name in ("run", "init", "random")}


@pytest.mark.parametrize(
    ("build", "encoders"),
    [
        (build_image, {"student", "teacher"}),
        (lambda: build_image("target_encoder=self"), {"student"}),
        (build_views, {"student", "projected"}),
    ],
)
def test_an_image_run_is_asked_everywhere(build: Callable[[], Experiment], encoders: set[str]) -> None:
    found = networks(build)
    result = sweep([colours(found["run"])], found)
    assert {point.encoder for point in result.points} == encoders | {"embedding"}
    assert {point.layer for point in result.points if point.encoder == "student"} == {0, 1}
    learned = [point for point in result.points if point.pooling == "attentive"]
    assert {point.encoder for point in learned} == encoders - {"projected"}
    assert result.mean(result.chosen) == max(map(result.mean, result.points))
    measure = result.test.measures["tint"]
    assert {"run", "init", "random", "embedding", "pixels"} == set(measure.values)
    assert measure.values["run"] > 0.8
    assert result.to_json()["chosen"]["validation"] == result.mean(result.chosen)


def test_test_rows_are_seen_by_the_chosen_point_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = networks(lambda: build_tiny(tmp_path))
    labels = [i % 2 for i in range(40)]
    tasks = [Classification(name, TEXTS[:30], labels[:30], TEXTS[30:], labels[30:], ("a", "b")) for name in "xy"]
    seen: list[int] = []
    prepare = found["run"].embedding.inputs

    def noting(texts: Sequence[str]) -> Any:
        seen.append(sum(text in TEXTS[30:] for text in texts))
        return prepare(texts)

    found["run"] = replace(found["run"], embedding=replace(found["run"].embedding, inputs=noting))
    result = sweep([*tasks, Triplets("t", [], [], [])], found)
    assert set(result.test.measures) == {"x", "y"}
    assert seen.count(0) > 0
    assert sum(seen) == 10 * 2  # the chosen point and the embedding beside it


def test_pooled_features_are_what_they_are_called(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path)
    method = experiment.method.eval()
    found, texts = pooled_features(experiment, TEXTS), experiment.embedding.inputs(TEXTS[:1])
    with torch.no_grad():
        states = method.student.states(texts.ids, texts.valid)
        embedding = method.embed(texts)
    for layer, state in enumerate(states):
        expected = {"mean": state[0].mean(0), "max": state[0].amax(0)}
        for pooling, vector in expected.items():
            np.testing.assert_allclose(found[Point("student", layer, pooling)][0], vector.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[EMBEDDING][0], embedding[0].numpy(), atol=1e-5)
    positions = position_features(experiment, TEXTS, "teacher", 1)
    assert positions.valid.sum(1).tolist() == [int(experiment.embedding.inputs([text]).valid.sum()) for text in TEXTS]
    mean = (positions.latents.astype(np.float32) * positions.valid[..., None]).sum(1) / positions.valid.sum(1)[:, None]
    np.testing.assert_allclose(mean, found[Point("teacher", 1, "mean")], atol=2e-2)


def test_what_cannot_be_asked_is_said() -> None:
    found = networks(build_image)
    with pytest.raises(UserError, match=r"data\.label"):
        sweep([], found)
    task = colours(found["run"])
    found["run"] = replace(found["run"], embedding=Embedding(found["run"].embedding.inputs))
    with pytest.raises(UserError, match=r"Method\.encoders"):
        sweep([task], found)


@pytest.mark.parametrize("build", [build_image, build_views, lambda: build_image("target_encoder=self")])
def test_every_probe_is_counted_and_their_number_known_from_the_first_on(build: Callable[[], Experiment]) -> None:
    found = networks(build)
    seen: list[tuple[int, int, str]] = []
    result = sweep([colours(found["run"])], found, on_probe=lambda *given: seen.append(given))
    done, total, what = zip(*seen, strict=True)
    assert list(done) == list(range(len(seen)))
    assert set(total) == {len(seen)}
    assert list(what[: len(result.points)]) == [point.name for point in result.points]
    assert what[-1].startswith("on test: ")


def test_progress_of_probes_is_a_line_now_and_then_without_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=200)
    with ProbeProgress(console) as progress:
        for done in range(100):
            progress(done, 100, f"layer {done}")
    lines = console.file.getvalue().splitlines()  # ty: ignore
    assert lines[0].startswith("probing every encoder")
    assert lines[1] == "0 of 100 probes done, next: layer 0"
    assert lines[2].startswith("10 of 100 probes done, about ")
    assert len(lines) == 11


def test_progress_of_probes_is_a_bar_in_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with ProbeProgress(console) as progress:
        progress(3, 10, "student layer 1, mean")
    assert "probe 4 of 10: student layer 1, mean" in console.file.getvalue()  # ty: ignore
