from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from openjepa.core.json_files import read_jsonl
from openjepa.core.method import StepOutput
from openjepa.core.progress import Progress
from openjepa.core.rundir import RunDir
from openjepa.training.hooks import ConsoleHook, CsvHook, JsonlHook, clock, default_hooks

OUTPUT = StepOutput({"prediction": torch.zeros(())})


def stats(loss: float, **more: float) -> dict[str, float]:
    return {"loss": loss, "tokens_per_s": 1000.0, "samples_per_s": 12.5, "grad_norm": 3.25, **more}


def record(step: int, status: str, skill: float = 0.5) -> dict:
    return {"step": step, "status": status, "evidence": "rank 1.0 of 8", "skill": skill}


def csv_rows(run: RunDir) -> list[dict[str, float]]:
    with run.metrics_csv.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_csv_and_jsonl_hold_the_same_rows(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in range(3):
        for hook in (JsonlHook(run), CsvHook(run)):
            hook(Progress(step, 3), OUTPUT, stats(1 / (step + 3)))
    assert csv_rows(run) == list(read_jsonl(run.metrics))


def test_forgetting_steps_forgets_them_in_the_csv_too(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in (10, 20, 30):
        for hook in (JsonlHook(run), CsvHook(run)):
            hook(Progress(step, 30), OUTPUT, stats(0.1 * step))
    run.forget_after(20)
    assert [row["step"] for row in csv_rows(run)] == [10, 20]
    CsvHook(run)(Progress(30, 30), OUTPUT, stats(7.0))
    assert csv_rows(run)[-1] == {"step": 30, **stats(7.0)}


def test_a_log_forgotten_to_its_start_gets_a_new_header(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for hook in (JsonlHook(run), CsvHook(run)):
        hook(Progress(1, 2), OUTPUT, stats(1.0))
    run.forget_after(-1)
    CsvHook(run)(Progress(1, 2), OUTPUT, stats(2.0))
    assert csv_rows(run) == [{"step": 1, **stats(2.0)}]


def test_a_stat_that_turns_up_late_gets_a_column(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    CsvHook(run)(Progress(1, 2), OUTPUT, stats(1.0))
    CsvHook(run)(Progress(2, 2), OUTPUT, stats(2.0, loss_extra=3.0))
    with run.metrics_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss_extra"] for row in rows] == ["", "3.0"]


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=200)


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_console_prints_about_twenty_plain_lines_without_a_terminal() -> None:
    console = plain_console()
    with ConsoleHook(console) as hook:
        for step in range(1, 1001):
            hook(Progress(step, 1000), OUTPUT, stats(0.5))
    lines = shown(console)
    assert len(lines) == 20
    assert lines[-1].startswith("step 1000/1000  loss 0.5000")
    assert "\x1b" not in "".join(lines)


def test_console_shows_skill_and_verdict_and_says_when_it_changes() -> None:
    console = plain_console()
    with ConsoleHook(console) as hook:
        hook.on_health(record(0, "healthy"))
        hook.on_health(record(5, "collapsed", skill=-0.1))
        hook.on_health(record(10, "collapsed", skill=-0.2))
        hook(Progress(10, 10), OUTPUT, stats(0.5))
    change, line = shown(console)
    assert change == "step 5: collapsed, rank 1.0 of 8"
    assert "skill -0.20  collapsed  1,000 tokens/s  12.5 samples/s" in line


def test_console_shows_the_gradient_norm_and_every_term_of_the_loss() -> None:
    console = plain_console()
    with ConsoleHook(console) as hook:
        hook(Progress(10, 10), OUTPUT, stats(0.5, loss_prediction=0.2, loss_variance=0.3))
    (line,) = shown(console)
    assert line.endswith("gradient norm 3.25  prediction 0.2000, variance 0.3000")


def test_console_says_of_which_step_an_older_verdict_is() -> None:
    console = plain_console()
    with ConsoleHook(console) as hook:
        hook.on_health(record(200, "healthy"))
        hook(Progress(300, 400), OUTPUT, stats(0.5))
        hook.on_health(record(400, "healthy"))
        hook(Progress(400, 400), OUTPUT, stats(0.5))
    older, current = shown(console)
    assert "skill 0.50  healthy (step 200)  " in older
    assert "skill 0.50  healthy  " in current


def test_console_in_a_terminal_draws_a_bar_and_survives_an_error() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)

    def interrupted() -> None:
        with ConsoleHook(console) as hook:
            hook.on_health(record(0, "healthy"))
            hook(Progress(1, 4), OUTPUT, stats(0.5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "step 1/4" in console.file.getvalue()  # ty: ignore
    assert "\x1b[?25h" in console.file.getvalue()  # ty: ignore  - the cursor is back


def test_default_hooks_write_both_logs_and_the_health_log(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with default_hooks(run, console=None) as hooks:
        for hook in hooks.on_step:
            hook(Progress(1, 1), OUTPUT, stats(1.0))
        for observer in hooks.on_health:
            observer(record(1, "healthy"))
    assert csv_rows(run) == list(read_jsonl(run.metrics))
    assert list(read_jsonl(run.health)) == [record(1, "healthy")]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
