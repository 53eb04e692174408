"""Matryoshka training: dimensions beyond the drawn size take no part in a training step, and in nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import openjepa
from openjepa.core.errors import UserError
from openjepa.training.nested import nested_dimensions

TINY = {
    "steps": 3,
    "encoder": {"dim": 32, "depth": 1, "heads": 2},
    "data": [f"a story about number {n}. it has two sentences." for n in range(80)],
    "log_every": 1,
    "health_every": 3,
    "precision": "32-true",
    "progress": False,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    return openjepa.train("t_jepa", out=tmp_path_factory.mktemp("nested") / "run", matryoshka=[4, 8], **TINY)


def test_a_training_step_reads_the_drawn_dimensions_and_an_evaluation_all(run: openjepa.Run) -> None:
    experiment = run.untrained()
    student = experiment.method.encoders()["student"]
    ids = torch.randint(5, 20, (2, 7))
    valid = torch.ones(2, 7, dtype=torch.bool)
    whole = student.eval()(ids, valid)
    kept = []
    with nested_dimensions(experiment) as draw:
        for step in range(40):
            draw(step)
            student.eval()
            assert torch.equal(student(ids, valid), whole)
            student.train()
            latents = student(ids, valid)
            nonzero = latents.abs().amax((0, 1)) > 0
            size = int(nonzero.sum())
            assert nonzero[:size].all()
            assert torch.equal(student.states(ids, valid)[-1], latents)  # what LANG-JEPA reads
            assert torch.allclose(latents[..., :size], whole[..., :size])  # no dropout in this recipe
            kept.append(size)
            draw(step)
            assert int((student(ids, valid).abs().amax((0, 1)) > 0).sum()) == size  # a function of the step
    assert set(kept) == {4, 8, 32}
    assert torch.equal(student.train()(ids, valid), whole)  # the hook is gone
    assert torch.equal(student.states(ids, valid)[-1], whole)


def test_dimensions_that_are_left_out_have_no_gradient(run: openjepa.Run) -> None:
    experiment = run.untrained()
    student = experiment.method.encoders()["student"].train()
    with nested_dimensions(experiment) as draw:
        step = next(step for step in range(40) if _drawn(draw, student, step) == 4)
        draw(step)
        latents = student(torch.randint(5, 20, (2, 7)), torch.ones(2, 7, dtype=torch.bool))
        inner = []
        latents.register_hook(inner.append)
        latents.square().sum().backward()
    assert inner[0][..., :4].abs().min() > 0
    assert inner[0][..., 4:].abs().max() == 0


def _drawn(draw, student, step: int) -> int:
    draw(step)
    latents = student(torch.randint(5, 20, (2, 7)), torch.ones(2, 7, dtype=torch.bool))
    return int((latents.abs().amax((0, 1)) > 0).sum())


def test_without_sizes_nothing_changes_and_impossible_ones_are_told(tmp_path: Path, run: openjepa.Run) -> None:
    again = openjepa.train("t_jepa", out=tmp_path / "plain", **TINY)
    other = openjepa.train("t_jepa", out=tmp_path / "none", matryoshka=[], **TINY)
    texts = ["a story", "another"]
    assert np.array_equal(again.encode(texts), other.encode(texts))
    assert not np.array_equal(again.encode(texts), run.encode(texts))
    with pytest.raises(UserError, match=r"the embedding has 32 dimensions; give smaller sizes"):
        openjepa.train("t_jepa", out=tmp_path / "large", matryoshka=[32], **TINY)
    experiment = run.untrained()
    predicted = replace(experiment, embedding=replace(experiment.embedding, pooling="predicted"))
    with (
        pytest.raises(UserError, match="needs an embedding that is the pooled output of an encoder"),
        nested_dimensions(predicted),
    ):
        pytest.fail("a predictor's output was taken for an encoder's")
    experiment.method.encoders()["student"].requires_grad_(False)
    with pytest.raises(UserError, match="the encoder of the embedding is frozen"), nested_dimensions(experiment):
        pytest.fail("a frozen encoder was taken for one that learns")
