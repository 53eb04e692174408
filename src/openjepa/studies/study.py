"""The course of every study: prepare its cells, finish them, pair the results, write them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from openjepa import api
from openjepa.core.errors import UserError
from openjepa.studies import plot, results, scoring
from openjepa.studies.cells import Arm, Cell, cells_of, prepare, processes_for
from openjepa.studies.progress import StudyProgress
from openjepa.studies.running import run_cells


def conduct(
    arms: Sequence[Arm],
    seeds: int,
    out: Path,
    jobs: int | None,
    about: Mapping[str, Any],
    console: Console | None = None,
) -> dict[str, Any]:
    """Train and score what is not finished, and return what results.json holds.

    `about` is what the study is, and leads the results. Raises UserError if a cell cannot be run, or none has results;
    KeyboardInterrupt leaves a folder that the same call goes on from.
    """
    cells = cells_of(arms, seeds, out)
    at_a_time = processes_for(cells, jobs)
    prepare(cells)
    try:
        with StudyProgress(cells, console) as progress:
            run_cells(cells, at_a_time, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; go on with the same command and --out {out}") from None
    found = results.collect(cells)
    if not found[0].scored:
        reasons = next(iter(found[0].stopped.values()), "it has no finished cell")
        raise UserError(f"{found[0].arm.label}, which all others are compared with, has no result: {reasons}")
    baselines = scoring.references(api.load(_first_scored(cells).path), out / results.REFERENCES)
    numbers = list(dict.fromkeys(cell.seed for cell in cells))
    summary = results.summary(found, {**about, "out": str(out), "seeds": numbers, "jobs": at_a_time}, baselines)
    results.write(out, found, summary)
    plot.draw(summary, out / results.FIGURE)
    return summary


def _first_scored(cells: Sequence[Cell]) -> Cell:
    return next(cell for cell in cells if cell.scores_file.exists())
