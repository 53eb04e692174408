"""Calls the trackers of a run: what they are sent, what they have already, and what happens if one fails.

A tracker gets every row of metrics.jsonl and health.jsonl once. What it was sent is kept in trackers.json, so a resumed
run goes on with the same tracked run: rows that it lacks (it had failed, or was added by hand) are sent at the start,
and rows that it has are not sent again. They are the same bit for bit, but for times and speeds.

An error of a tracker is said once and switches it off; training goes on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json
from openjepa.core.method import StepOutput
from openjepa.core.progress import Progress
from openjepa.core.remarks import remark
from openjepa.core.rundir import RunDir, write_json
from openjepa.core.values import plain, read_yaml
from openjepa.training.trackers import PACKAGES, TRACKERS, Held, Tracker

VERDICTS = {"healthy": 2, "at risk": 1, "not learning": 0, "collapsed": -1}  # as numbers; "not judged" has none
LONGEST_ERROR = 200  # characters of it that are said


class Tracking:
    """One tracker while a run trains: a hook of log steps, and an observer of health checks."""

    def __init__(self, run: RunDir, name: str) -> None:
        require_trackers([name])
        self._tracker: Tracker | None = TRACKERS[name](run)
        self._run = run
        self._name = name
        self._held = Held()

    def __enter__(self) -> Self:
        self._guarded(self._start)
        return self

    def _start(self, tracker: Tracker) -> None:
        known = self._sent()
        self._held = Held(known.get("metrics", -1), known.get("health", -1))
        started = tracker.start(plain(read_yaml(self._run.config_file)), known.get("run"))
        self._held = started.held or self._held
        self._id = started.run
        self._keep()
        rows = [*self._run.log_rows(), *self._run.health_records()]
        for row in sorted(rows, key=lambda row: row["step"]):  # log lines first where steps are equal
            self._send(tracker, row)

    def __call__(self, progress: Progress, output: StepOutput, stats: Mapping[str, float]) -> None:
        self._guarded(lambda tracker: self._send(tracker, {"step": progress.step, **stats}))

    def on_health(self, record: Mapping[str, Any]) -> None:
        """Send a record of the health monitor."""
        self._guarded(lambda tracker: self._send(tracker, record))

    def _send(self, tracker: Tracker, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl or of health.jsonl, if the tracker does not have it."""
        kind = "health" if "status" in row else "metrics"
        step = row["step"]
        if step <= getattr(self._held, kind):
            return
        if kind == "health":
            tracker.log(step, health_scalars(row), f"{row['status']}: {row['evidence']}")
        else:
            tracker.log(step, scalars(row), None)
        self._held = self._held._replace(**{kind: step})
        self._keep()

    def _sent(self) -> dict[str, Any]:
        return read_json(self._run.trackers).get(self._name, {}) if self._run.trackers.exists() else {}

    def _keep(self) -> None:
        others = read_json(self._run.trackers) if self._run.trackers.exists() else {}
        write_json(self._run.trackers, {**others, self._name: {"run": self._id, **self._held._asdict()}})

    def _guarded(self, call: Callable[[Tracker], None]) -> None:
        """Call with the tracker; an error switches it off."""
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:
            self._tracker = None
            said = f"{type(error).__name__}: {error}"[:LONGEST_ERROR]
            remark(f"{self._name} gets nothing more of this run ({said}); training goes on")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "finished" if kind is None else "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        self._guarded(lambda tracker: tracker.close(status))


def require_trackers(names: Iterable[str]) -> None:
    """Raises UserError if a tracker's packages are not installed."""
    for name in names:
        missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(
                f"train.loggers={name} needs the package {' and '.join(missing)}: pip install 'openjepa[track]'"
            )


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row under the names that trackers show: loss, terms/<name>, lr, grad_norm, ..."""
    numbers = {key: float(value) for key, value in row.items() if is_number(value) and key != "step"}
    return {shown_name(key): value for key, value in numbers.items()}


def health_scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The same of a health record: health/skill, health/rank, ..., and the verdict as a number."""
    verdict = VERDICTS.get(record["status"])
    numbers = scalars(record) | ({} if verdict is None else {"verdict": float(verdict)})
    return {f"health/{name}": value for name, value in numbers.items()}


def shown_name(key: str) -> str:
    return f"terms/{key.removeprefix('loss_')}" if key.startswith("loss_") else key


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
