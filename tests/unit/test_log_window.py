"""What a log line holds: means over steps, accumulated batches and both parts of an interrupted window."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openjepa import api
from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.json_files import read_jsonl
from openjepa.core.method import StepOutput
from openjepa.data.loading.loader import train_batches
from openjepa.training.loop import make_fabric
from openjepa.training.window import LogWindow
from tests.tiny import TINY, build_tiny

STEPS = 6
SETTINGS = (*TINY, f"train.steps={STEPS}", "train.warmup_steps=2", "train.accumulate=2", "train.checkpoint_every=0")


def logged(out: Path, log_every: int) -> list[dict]:
    defaults = out.with_suffix(".yaml")
    defaults.write_text("recipe: t_jepa\n")  # as `build_tiny` has them, not those of a preset
    settings = [*SETTINGS, f"train.log_every={log_every}"]
    run = api.train("t_jepa", config=defaults, out=out, overrides=settings, progress=False)
    return list(read_jsonl(run.path / "metrics.jsonl"))


def batch(size: int) -> Batch:
    return Batch(keys=torch.arange(size))


def output(**terms: float) -> StepOutput:
    return StepOutput({name: torch.tensor(value) for name, value in terms.items()})


def window() -> LogWindow:
    return LogWindow(make_fabric(TrainConfig(accelerator="cpu")))


def test_a_line_is_the_mean_of_the_lines_of_its_steps(tmp_path: Path) -> None:
    each, wide = logged(tmp_path / "each", 1), logged(tmp_path / "wide", 4)
    assert [row["step"] for row in wide] == [4, 6]
    names = [name for name in each[0] if name.startswith("loss")] + ["grad_norm"]
    assert {"loss", "loss_prediction"} < set(names)
    for row, steps in zip(wide, (each[:4], each[4:]), strict=True):
        for name in names:
            assert row[name] == pytest.approx(sum(step[name] for step in steps) / len(steps), rel=1e-6)
        assert row["grad_norm_max"] == max(step["grad_norm"] for step in steps)
        assert row["samples"] == sum(step["samples"] for step in steps) == 15 * 2 * len(steps)
        assert row["tokens"] == sum(step["tokens"] for step in steps)


def test_the_first_line_has_every_accumulated_batch(tmp_path: Path) -> None:
    row = logged(tmp_path / "run", 1)[0]
    experiment = build_tiny(tmp_path, *SETTINGS)
    batches = train_batches(experiment, 0)
    losses = [experiment.method(next(batches)).loss.item() for _ in range(2)]
    assert abs(losses[0] - losses[1]) > 1e-3
    assert row["loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_the_summary_has_the_mean_of_the_last_line(tmp_path: Path) -> None:
    rows = logged(tmp_path / "run", 4)
    summary = api.load(tmp_path / "run").summary()
    assert summary["loss"] == rows[-1]["loss"]
    assert summary["samples_per_s"] == pytest.approx(
        summary["tokens_per_s"] * 180 / sum(r["tokens"] for r in rows), rel=1e-3
    )


def test_one_step_of_one_batch_is_logged_to_the_last_digit() -> None:
    one = window()
    loss = torch.rand(())
    one.add_batch(batch(3), StepOutput({"prediction": loss}))
    one.add_step(torch.tensor(1 / 3))
    stats = one.close(0.1, 0.2)
    assert (stats["loss"], stats["loss_prediction"], stats["grad_norm"]) == (
        float(loss),
        float(loss),
        float(torch.tensor(1 / 3)),
    )
    assert (stats["samples"], stats["lr"], stats["weight_decay"]) == (3, 0.1, 0.2)
    assert one.state() == {}


def test_terms_that_come_and_go_still_add_up_to_the_loss() -> None:
    some = window()
    for terms in ({"a": 1.0}, {"a": 3.0, "b": 2.0}):
        some.add_batch(batch(2), output(**terms))
        some.add_step(torch.tensor(1.0))
    stats = some.close(0.1, 0.0)
    assert (stats["loss_a"], stats["loss_b"], stats["loss"]) == (2.0, 1.0, 3.0)


def test_a_window_cut_by_a_checkpoint_gives_the_same_line() -> None:
    values = torch.rand(5, generator=torch.Generator().manual_seed(0))

    def add(to: LogWindow, some: torch.Tensor) -> None:
        for value in some:
            to.add_batch(batch(2), StepOutput({"a": value / 2, "b": value / 3}))
            to.add_step(10 * value)

    whole, first, second = window(), window(), window()
    add(whole, values)
    add(first, values[:3])
    second.restore(first.state())
    add(second, values[3:])
    timed = ("tokens_per_s", "samples_per_s", "batch_s")
    one, other = ({k: v for k, v in w.close(0.1, 0.0).items() if k not in timed} for w in (whole, second))
    assert one == other
