"""The training of a run as its log files tell it now, whether it is going on, over, or without a checkpoint yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openjepa.api import Run
from openjepa.pages.run.logs import Logs, read_logs

EVERY_S = 3  # between two looks at the files
RECENT = 20  # log lines that the speed is measured on
SILENT_S = 600  # without a log line, from which training may have stopped

Signature = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TrainingState:
    """What the files of a run say."""

    logs: Logs
    tokens_per_s: float | None  # of recent steps; tokens or patches
    left_s: float | None  # until the last step, None = unknown or over
    silent_s: float | None  # since the last log line, None = without one
    advice: list[str]  # settings that would treat the verdict, as "key=value"

    @property
    def may_have_stopped(self) -> bool:
        """Whether an unfinished run has been silent for long."""
        return not self.logs.finished and self.silent_s is not None and self.silent_s > SILENT_S


class Training:
    """The panel of a run's training. `clock` is the time in seconds since 1970."""

    title = "Training"

    def __init__(self, run: Run, clock: Callable[[], float] = time.time) -> None:
        self.run = run
        self.clock = clock

    def signature(self) -> Signature:
        """Equal as long as no log file changed: time of change and size of each."""
        folder = self.run.folder
        files = [file.stat() for file in (folder.metrics, folder.health, folder.summary) if file.exists()]
        return tuple((found.st_mtime_ns, found.st_size) for found in files)

    def state(self) -> TrainingState:
        """Read the files. A line that is not whole yet is skipped."""
        logs = read_logs(self.run.path)
        metrics = self.run.folder.metrics
        speed, step_s = speed_of(logs.metrics)
        left = None if step_s is None or logs.finished else max(0, logs.total_steps - logs.step) * step_s
        silent = max(0.0, self.clock() - metrics.stat().st_mtime) if metrics.exists() else None
        return TrainingState(logs, speed, left, silent, self.run.suggested_overrides())


def speed_of(rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Tokens a second and seconds a step over the last log lines; None where they do not tell.

    A line gives the tokens since the line before it and their rate, so the time of a step needs two lines. Health
    checks and checkpoints are left out of both.
    """
    recent = rows[-RECENT - 1 :]
    counted = [row for row in recent[1:] or recent if "tokens" in row and row.get("tokens_per_s", 0) > 0]
    span_s = sum(row["tokens"] / row["tokens_per_s"] for row in counted)
    if not span_s:
        return None, None
    steps = recent[-1]["step"] - recent[0]["step"]
    return sum(row["tokens"] for row in counted) / span_s, span_s / steps if steps > 0 else None
