"""The last part of a run is the predictor's: what is frozen, what moves, its rate, and that a resume is exact."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from openjepa import api
from openjepa.cli import main
from openjepa.core.config import TrainConfig
from openjepa.core.json_files import read_jsonl
from openjepa.core.progress import Progress
from openjepa.core.schedules import warmup_cosine
from openjepa.data.loading.loader import train_batches
from openjepa.objectives.contrast import LateContrast
from openjepa.recipes import lang_jepa
from openjepa.studies import costs
from openjepa.training import checkpoint
from openjepa.training.stages import freeze_all_but_predictor, learning_rate, within_part
from tests.tiny import NANO, TINY, build_tiny

STEPS, JOINT = 16, 10
SETTINGS = (
    *TINY,
    f"train.steps={STEPS}",
    "train.predictor_only_fraction=0.4",
    "train.lr=1e-3",
    "train.warmup_steps=2",
    "train.checkpoint_every=2",
    "train.keep_checkpoints=20",
    "train.health_every=8",
    "train.health_samples=1",
    "train.log_every=1",
    "encoder.dropout=0.1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return api.train("lang_jepa", out=tmp_path_factory.mktemp("runs") / "run", overrides=SETTINGS, progress=False)


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:06d}" / checkpoint.WEIGHTS)


def moved(run: Path, before: int, after: int) -> dict[str, bool]:
    """Whether any tensor of each part of the method changed between two checkpoints."""
    first, second = weights(run, before), weights(run, after)
    parts: dict[str, bool] = {}
    for name, tensor in first.items():
        part = name.split(".")[0]
        parts[part] = parts.get(part, False) or not torch.equal(tensor, second[name])
    return parts


def test_first_everything_moves_then_the_predictor_alone(run: api.Run) -> None:
    learning = {"student": True, "teacher": True, "predictor": True}
    assert moved(run.path, JOINT - 2, JOINT).items() >= learning.items()
    frozen = {"student": False, "teacher": False, "predictor": True}
    for step in range(JOINT, STEPS, 2):
        assert moved(run.path, step, step + 2).items() >= frozen.items()


def test_the_run_notes_where_the_second_part_begins(run: api.Run) -> None:
    assert run.summary()["notes"]["predictor_alone_after_step"] == JOINT


def test_the_rate_warms_up_and_falls_in_each_part(run: api.Run) -> None:
    rates = [row["lr"] for row in read_jsonl(run.path / "metrics.jsonl")]
    peak, low = 1e-3, 0.2 * 1e-3
    assert rates[0] == pytest.approx(low)
    assert rates[JOINT] == pytest.approx(low)
    assert rates[2] == rates[JOINT + 2] == pytest.approx(peak)
    assert rates[JOINT - 1] < 0.1 * peak
    assert rates[2:JOINT] == sorted(rates[2:JOINT], reverse=True)


@pytest.mark.parametrize("kept", [JOINT - 2, JOINT, JOINT + 2, STEPS - 2])
def test_a_resumed_run_is_the_run(run: api.Run, tmp_path: Path, kept: int) -> None:
    """From before the change, exactly at it and after it."""
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    while checkpoint.newest_step(copy / "checkpoints") > kept:
        shutil.rmtree(checkpoint.newest(copy / "checkpoints"))
    api.train("", out=copy, resume=True, progress=False)
    mine, theirs = weights(copy, STEPS), weights(run.path, STEPS)
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


def test_each_part_has_its_steps_and_at_least_one() -> None:
    assert TrainConfig(steps=40).joint_steps == 40
    assert TrainConfig(steps=40, predictor_only_fraction=1).joint_steps == 0
    assert TrainConfig(steps=40, predictor_only_fraction=0.25).joint_steps == 30
    assert TrainConfig(steps=40, predictor_only_fraction=0.001).joint_steps == 39
    assert TrainConfig(steps=40, predictor_only_fraction=0.999).joint_steps == 1
    assert TrainConfig(steps=1, predictor_only_fraction=0.5).joint_steps == 1
    assert within_part(Progress(29, 40), 30) == Progress(29, 30)
    assert within_part(Progress(30, 40), 30) == Progress(0, 10)
    assert within_part(Progress(7, 40), 40) == Progress(7, 40)


@pytest.mark.parametrize("alone", [1, 5, 29, 60])
def test_how_long_the_second_part_is_does_not_change_the_rate_of_the_first(alone: int) -> None:
    joint = 200
    config = TrainConfig(
        steps=joint + alone, predictor_only_fraction=alone / (joint + alone), warmup_steps=30, lr=1, final_lr=0.1
    )
    rate = learning_rate(config)
    rates = [rate(Progress(step, joint + alone)) for step in range(joint + alone)]
    first = warmup_cosine(1, 0.1, 30)
    assert rates[:joint] == [first(Progress(step, joint)) for step in range(joint)]
    assert rates[joint] == pytest.approx(0.2)
    if alone > 1:
        assert max(rates[joint:]) == pytest.approx(1)
        assert rates[-1] < 0.5


@pytest.mark.parametrize(("warmup", "fits"), [(100, 100), (101, 10)])
def test_the_warm_up_fits_the_joint_part(warmup: int, fits: int) -> None:
    assert TrainConfig(steps=200, predictor_only_fraction=0.5, warmup_steps=warmup).fitted_warmup_steps == fits
    assert TrainConfig(steps=100, predictor_only_fraction=1, warmup_steps=warmup).fitted_warmup_steps == fits


def test_the_gradient_of_the_predictor_is_what_it_was(tmp_path: Path) -> None:
    """Freezing changes what learns, not what is computed."""
    experiment = build_tiny(tmp_path, recipe=lang_jepa)
    method, batch = experiment.method, next(iter(train_batches(experiment, 0)))
    method(batch).loss.backward()
    before = {name: p.grad.clone() for name, p in method.predictor.named_parameters()}
    assert any(p.grad is not None for p in method.student.parameters())
    method.zero_grad()
    freeze_all_but_predictor(method)
    method(batch).loss.backward()
    for name, parameter in method.predictor.named_parameters():
        torch.testing.assert_close(parameter.grad, before[name])
    assert all(p.grad is None for p in method.student.parameters())


def test_the_cost_of_a_run_is_the_mean_of_its_parts(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, recipe=lang_jepa)

    def flops(fraction: float) -> float:
        train = experiment.train.model_copy(update={"predictor_only_fraction": fraction})
        return costs.measure(replace(experiment, train=train), costs.COUNTED).flops_per_token

    whole, alone = flops(0), flops(1)
    assert alone < 0.7 * whole
    part = (
        1 - experiment.train.model_copy(update={"predictor_only_fraction": 0.25}).joint_steps / experiment.train.steps
    )
    assert flops(0.25) == pytest.approx((1 - part) * whole + part * alone)
    assert all(p.requires_grad for p in experiment.method.student.parameters())  # it is only read


def test_the_cost_of_the_second_part_has_the_contrast_that_comes_late(tmp_path: Path) -> None:
    def flops(*settings: str) -> float:
        fixed = ("train.predictor_only_fraction=1", "target.skip_top=0")  # else targets are words, which cost nothing
        experiment = build_tiny(tmp_path, *fixed, *settings, recipe=lang_jepa)
        return costs.measure(experiment, costs.COUNTED).flops_per_token

    assert flops("contrast.weight=1", "contrast.start=0.9") > 1.1 * flops("contrast.weight=0")


def test_every_timed_step_of_the_second_part_has_that_contrast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("train.predictor_only_fraction=1", "contrast.weight=1", "contrast.start=0.9", "train.steps=50")
    experiment = build_tiny(tmp_path, *settings, recipe=lang_jepa)
    weights, call = [], LateContrast.__call__

    def counted(self: LateContrast, *given: Any) -> torch.Tensor:
        *_, progress = given
        weights.append(self.weight(progress))
        return call(self, *given)

    monkeypatch.setattr(LateContrast, "__call__", counted)
    costs.seconds_per_step(experiment)
    assert weights == [1.0] * (costs.WARM + costs.TIMED)


@pytest.mark.parametrize("words", [("train", "--out", "{}/run"), ("check",)])
def test_a_method_without_predictor_says_so(words: tuple, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    command, *more = (word.format(tmp_path) for word in words)
    assert main([command, "nano_jepa", *NANO, "train.steps=4", "train.predictor_only_fraction=0.5", *more]) == 2
    assert "train.predictor_only_fraction: NanoJEPA has no predictor" in capfd.readouterr().err
