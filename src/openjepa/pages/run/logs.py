"""The records of a run folder, read once: configuration, environment, log lines and health checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openjepa.core.rundir import RunDir


@dataclass(frozen=True)
class Logs:
    """The current content of a run folder's files; the run may still be training."""

    folder: RunDir
    recipe: str
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]  # one row a log step
    health: list[dict[str, Any]]  # one record a health check
    summary: dict[str, Any]  # empty before the end of training

    @property
    def name(self) -> str:
        return self.folder.path.resolve().name

    @property
    def total_steps(self) -> int:
        steps = self.train.get("steps")
        return steps if isinstance(steps, int) and steps > 0 else self.step

    @property
    def train(self) -> dict[str, Any]:
        """The section `train` of the configuration, which nobody has validated if the run's recipe is not trusted."""
        section = self.config.get("train")
        return section if isinstance(section, dict) else {}

    @property
    def step(self) -> int:
        """The last step in the logs."""
        return max([row["step"] for row in (*self.metrics, *self.health)], default=0)

    @property
    def finished(self) -> bool:
        return bool(self.summary)

    @property
    def notes(self) -> dict[str, Any]:
        """Counts and notes on the data and the method."""
        return self.summary.get("notes") or self.environment.get("notes") or {}


def read_logs(path: Path) -> Logs:
    """The logs of a run folder. Raises UserError if it is none."""
    folder = RunDir.open(path)
    recipe, config = folder.recipe_and_values()
    return Logs(
        folder,
        recipe,
        config,
        folder.environment(),
        list(folder.log_rows()),
        list(folder.health_records()),
        folder.read_summary(),
    )


def series(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of every row that has a finite `name`."""
    return [
        (row["step"], float(value))
        for row in rows
        if isinstance(value := row.get(name), int | float) and math.isfinite(value)
    ]


def spaced(records: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """At most `count` records, evenly spaced, the first and last among them."""
    if len(records) <= count:
        return list(records)
    return [records[round(i * (len(records) - 1) / (count - 1))] for i in range(count)]
