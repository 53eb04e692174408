"""The loop: the first gradient that is not finite is named, and a collapse is saved once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from openjepa.core.distributed import gather_rows, world_size
from openjepa.core.errors import NonFinite, TrainingStopped
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.rundir import RunDir
from openjepa.training import checkpoint
from openjepa.training.loop import fit, make_fabric
from tests.tiny import build_tiny


def experiment_of(folder: Path, **train: Any) -> Experiment:
    settings = {"steps": 6, "log_every": 2, "health_every": 2, "checkpoint_every": 2, "warmup_steps": 1}
    experiment = build_tiny(folder / "assets")
    return replace(experiment, train=experiment.train.model_copy(update={**settings, **train}))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_parameter_whose_gradient_is_not_finite_is_named(value: float, tmp_path: Path) -> None:
    """Clipping by a norm of NaN would make every gradient NaN."""
    experiment = experiment_of(tmp_path)
    learned = [(name, one) for name, one in experiment.method.named_parameters() if one.requires_grad]
    name, last = learned[-1]
    last.register_hook(lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(NonFinite, match=f"non-finite gradient at step 0, in {name} first"):
        fit(make_fabric(experiment.train), experiment, RunDir(tmp_path / "run"))


class Collapsed:
    """A health monitor that finds a collapse."""

    def check(self, *arguments: Any) -> dict[str, Any]:
        return {"status": "collapsed", "score": 0.0, "evidence": "one direction", "advice": "Raise regularizer.weight."}


def test_a_collapse_stops_a_run_that_is_told_to_and_is_saved_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, *rest: (saved.append(step), save(folder, step, *rest)))
    for every, expected in ((2, [2]), (4, [2])):
        saved.clear()
        run = RunDir(tmp_path / str(every))
        experiment = experiment_of(tmp_path / str(every), on_collapse="stop", checkpoint_every=every)
        with pytest.raises(TrainingStopped, match=r"collapsed at step 2 \(one direction\); Raise regularizer"):
            fit(make_fabric(experiment.train), experiment, run, health=Collapsed())
        assert saved == expected
        assert checkpoint.newest_step(run.checkpoints) == 2


def test_an_evaluation_is_that_of_one_process_whatever_the_number_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank has the same rows: gathered, a contrast would take the copies for negatives."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    rows = torch.randn(3, 4)
    assert world_size() == 2
    with evaluating(torch.nn.Linear(4, 4)):
        assert world_size() == 1
        assert gather_rows(rows) is rows
    assert world_size() == 2
