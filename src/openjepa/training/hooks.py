"""Observers of a run: log files, TensorBoard, and a progress line in the terminal.

A hook is called at every log step with (progress, output, stats) and only observes; training does not depend on it. A
health observer is called with every record of the health monitor. `default_hooks` opens the usual ones and always
closes them. Only rank 0 has hooks.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, Self

from rich import progress as bars
from rich.console import Console
from rich.table import Column
from rich.text import Text

from openjepa.core.method import Hook, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.rundir import RunDir, append_jsonl, write_csv
from openjepa.training.tracking import Tracking

HealthObserver = Callable[[Mapping[str, Any]], None]
PLAIN_LINES = 20  # approximate number of lines of a whole run without a terminal
STYLES = {"healthy": "green", "collapsed": "bold red"}  # of a verdict; all others are warnings
WARNING = "yellow"


class Hooks(NamedTuple):
    """The observers of one run."""

    on_step: list[Hook]
    on_health: list[HealthObserver]


@contextmanager
def default_hooks(run: RunDir, console: Console | None, loggers: Sequence[str] = ()) -> Generator[Hooks]:
    """Log files always, a progress line if there is a `console`, and the trackers named in `loggers`.

    Raises UserError if a tracker's package is not installed.
    """
    with ExitStack() as stack:
        hooks = Hooks([JsonlHook(run), CsvHook(run)], [partial(append_jsonl, run.health)])
        for tracking in [Tracking(run, name) for name in loggers]:  # all are known to be installed before one starts
            stack.enter_context(tracking)
            hooks.on_step.append(tracking)
            hooks.on_health.append(tracking.on_health)
        if console is not None:
            line = stack.enter_context(ConsoleHook(console))
            hooks.on_step.append(line)
            hooks.on_health.append(line.on_health)
        yield hooks


class JsonlHook:
    """One object a log step in metrics.jsonl: the step and all of its stats."""

    def __init__(self, run: RunDir) -> None:
        self.path = run.metrics

    def __call__(self, progress: Progress, output: StepOutput, stats: dict[str, float]) -> None:
        append_jsonl(self.path, {"step": progress.step, **stats})


class CsvHook:
    """The same rows in metrics.csv, for spreadsheets. A new stat adds a column."""

    def __init__(self, run: RunDir) -> None:
        self.path = run.metrics_csv

    def __call__(self, progress: Progress, output: StepOutput, stats: dict[str, float]) -> None:
        row = {"step": progress.step, **stats}
        columns = self._columns()
        if not set(row) <= set(columns):
            write_csv(self.path, [*self._rows(), row])
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, fieldnames=columns).writerow(row)

    def _columns(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])

    def _rows(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


class ConsoleHook:
    """The progress of the run on one line: a live bar in a terminal, else occasional plain lines."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = bars.Progress(bars.BarColumn(bar_width=20), _StateColumn(), console=console, transient=True)
        self._task: Any = None
        self._first: tuple[int, float] | None = None  # step and time of the first call, for the time left
        self._printed_step = 0
        self._health: Mapping[str, Any] = {}

    def on_health(self, record: Mapping[str, Any]) -> None:
        """Store the newest verdict, and print it at once if it changed."""
        if record["status"] != self._health.get("status", "healthy"):
            line = f"step {record['step']}: {record['status']}, {record['evidence']}"
            self.console.print(
                line, style=verdict_style(record["status"]), markup=False, highlight=False, soft_wrap=True
            )
        self._health = record

    def __call__(self, progress: Progress, output: StepOutput, stats: dict[str, float]) -> None:
        now = time.perf_counter()
        self._first = self._first or (progress.step, now)
        steps = progress.step - self._first[0]
        span_s = now - self._first[1]
        left_s = span_s / steps * (progress.total_steps - progress.step) if steps else None
        state = self._state(progress, stats, left_s)
        if self.console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task("", total=progress.total_steps, state=state)
            self._bar.update(self._task, completed=progress.step, state=state)
        elif self._is_due(progress):
            self._printed_step = progress.step
            self.console.print(state, highlight=False, soft_wrap=True)

    def _is_due(self, progress: Progress) -> bool:
        since = progress.step - self._printed_step
        return progress.step == progress.total_steps or since >= progress.total_steps / PLAIN_LINES

    def _state(self, progress: Progress, stats: dict[str, float], left_s: float | None) -> Text:
        text = Text(f"step {progress.step}/{progress.total_steps}  loss {stats['loss']:.4f}  ")
        if self._health:
            text.append_text(self._verdict(progress.step))
        text.append(f"{stats['tokens_per_s']:,.0f} tokens/s  {stats['samples_per_s']:,.1f} samples/s")
        if left_s is not None:
            text.append(f"  {clock(left_s)} left")
        text.append(f"  gradient norm {stats['grad_norm']:.3g}")
        terms = {name.removeprefix("loss_"): value for name, value in stats.items() if name.startswith("loss_")}
        if len(terms) > 1:
            text.append("  " + ", ".join(f"{name} {value:.4f}" for name, value in terms.items()))
        return text

    def _verdict(self, step: int) -> Text:
        """Skill and verdict of the newest health check, and its step where that is not this one."""
        skill = self._health.get("skill")
        status = self._health["status"]
        checked = self._health["step"]
        text = Text("" if skill is None else f"skill {skill:.2f}  ")
        text.append(status, style=verdict_style(status))
        return text.append("  " if checked == step else f" (step {checked})  ")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self._bar.stop()


class _StateColumn(bars.ProgressColumn):
    """One line whatever the width: a narrow terminal cuts its end off."""

    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: bars.Task) -> Text:
        return task.fields["state"]


def verdict_style(status: str) -> str:
    """The colour of a verdict."""
    return STYLES.get(status, WARNING)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 3725 -> "1:02:05"."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
