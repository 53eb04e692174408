"""The attentive probe: finds what one place alone knows, reads no padding, equals a linear one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openjepa.evals.attentive import Positions, Probe, fit_probe
from openjepa.evals.probes import logistic

N, T, D = 600, 6, 12


def held_out(count: int = N) -> np.ndarray:
    return np.arange(count) % 5 == 0


def planted(seed: int = 0) -> tuple[Positions, np.ndarray]:
    """One position of each input is marked in dimension 0, and its dimension 1 tells the class; others deceive."""
    draw = np.random.default_rng(seed)
    latents = draw.normal(size=(N, T, D)).astype(np.float32)
    labels = draw.integers(0, 2, N)
    marked = draw.integers(0, T, N)
    latents[:, :, 0] = 0
    latents[:, :, 1] = 3 * draw.choice([-1, 1], (N, T))
    latents[np.arange(N), marked, 0] = 4
    latents[np.arange(N), marked, 1] = 3 * (2 * labels - 1)
    return Positions(latents, np.ones((N, T), dtype=bool)), labels[:, None]


def test_it_looks_where_the_answer_is_and_the_mean_cannot() -> None:
    (positions, labels), (fresh, fresh_labels) = planted(0), planted(1)
    probe, _ = fit_probe(positions, labels, [2], held_out())
    mean, _ = fit_probe(Positions.single(positions.latents.mean(1)), labels, [2], held_out())
    assert probe.right(fresh, fresh_labels).mean() > 0.9
    assert mean.right(Positions.single(fresh.latents.mean(1)), fresh_labels).mean() < 0.8


def test_over_one_position_it_is_a_linear_probe() -> None:
    draw = np.random.default_rng(0)
    vectors = (draw.normal(size=(1200, D)) * np.geomspace(0.01, 100, D)).astype(np.float32)
    labels = (vectors / np.geomspace(0.01, 100, D) @ draw.normal(size=(D, 3)) + draw.normal(size=(1200, 3))).argmax(1)
    probe, _ = fit_probe(Positions.single(vectors[:800]), labels[:800, None], [3], held_out(800))
    found = probe.right(Positions.single(vectors[800:]), labels[800:, None]).mean()
    reference = logistic(vectors[:800], labels[:800], vectors[800:], labels[800:]).value
    assert found == pytest.approx(reference, abs=0.04)


def test_padding_is_not_read() -> None:
    positions, _ = planted()
    padded = Positions(np.concatenate([positions.latents, np.full((N, 2, D), 1e4, np.float32)], 1),
                    np.concatenate([positions.valid, np.zeros((N, 2), dtype=bool)], 1))  # fmt: skip
    rows = np.arange(20)
    probes = [Probe(p, rows, [2, 3], torch.Generator().manual_seed(0)) for p in (positions, padded)]
    for probe in probes:
        for layer in probe.head:
            torch.nn.init.ones_(layer.weight)
    for one, other in zip(probes[0](*positions.rows(rows)), probes[1](*padded.rows(rows)), strict=True):
        torch.testing.assert_close(one, other)


def test_questions_do_not_disturb_each_other() -> None:
    positions, labels = planted()
    noise = np.random.default_rng(1).integers(0, 7, (N, 1))
    _, alone = fit_probe(positions, labels, [2], held_out())
    _, together = fit_probe(positions, np.concatenate([labels, noise], 1), [2, 7], held_out())
    assert together[0] == pytest.approx(alone[0], abs=0.05)
    assert together[1] < 0.4


def test_the_kept_weights_are_those_that_did_best_on_validation() -> None:
    positions, labels = planted()
    noise = np.random.default_rng(2).integers(0, 2, (N, 1))
    probe, accuracy = fit_probe(positions, np.concatenate([labels, noise], 1), [2, 2], held_out())
    asked = Positions(positions.latents[held_out()], positions.valid[held_out()])
    again = probe.right(asked, np.concatenate([labels, noise], 1)[held_out()]).mean(0)
    assert again.tolist() == accuracy.tolist()
    other, same = fit_probe(positions, np.concatenate([labels, noise], 1), [2, 2], held_out())
    assert same.tolist() == accuracy.tolist()
    assert torch.equal(other.query[0], probe.query[0])
