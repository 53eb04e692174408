"""The steps of every study: prepare its cells, finish them, pair the results, write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json
from openjepa.core.rundir import write_json
from openjepa.data.files.discovery import files_behind
from openjepa.data.loading.cache import file_versions
from openjepa.evals.suite import require_texts
from openjepa.evals.suite_file import Suite
from openjepa.studies import plot, results, scoring
from openjepa.studies.cells import Arm, Cell, cells_of, prepare, processes_for, suite_mark
from openjepa.studies.progress import StudyProgress
from openjepa.studies.running import run_cells
from openjepa.studies.trial import built

DATA = "data.json"  # versions of the study's data files


def conduct(
    arms: Sequence[Arm],
    seeds: int,
    out: Path,
    jobs: int | None,
    about: Mapping[str, Any],
    console: Console | None = None,
    suite: Suite | None = None,
) -> dict[str, Any]:
    """Train and score the unfinished cells, and return the content of results.json.

    `about` describes the study at the head of the results. With a suite, cells are scored on its tasks instead of those
    of their recipes; scores are kept by suite, so another one scores trained cells anew.

    Raises UserError if a cell cannot be run, or none has results; after KeyboardInterrupt the same call resumes.
    """
    cells = cells_of(arms, seeds, out, suite)
    if suite is not None:
        _require_readable(suite, console)
    todo = [cell for cell in cells if not cell.finished]
    if suite is not None and todo:
        with built(arms[0]) as experiment:
            require_texts(experiment, arms[0].recipe)
    at_a_time = processes_for(todo, jobs)
    _require_same_data(arms, out)
    prepare(cells)
    try:
        with StudyProgress(cells, console) as progress:
            run_cells(todo, at_a_time, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; resume with the same command and --out {out}") from None
    arm_results = results.collect(cells)
    if not arm_results[0].scored:
        reasons = next(iter(arm_results[0].stopped.values()), "it has no finished cell")
        raise UserError(f"{arm_results[0].arm.label}, which all others are compared with, has no result: {reasons}")
    baselines = scoring.references(
        scoring.loaded(_first_scored(cells).path), out / f"references{suite_mark(suite)}.json", suite
    )
    numbers = list(dict.fromkeys(cell.seed for cell in cells))
    most = max(at_a_time, _jobs_before(out))
    description = {**about, "suite": suite and suite.name, "out": str(out), "seeds": numbers, "jobs": most}
    summary = results.summary(arm_results, description, baselines)
    results.write(out, arm_results, summary)
    plot.draw(summary, out / results.FIGURE)
    return summary


def _require_readable(suite: Suite, console: Console | None) -> None:
    """Read the suite's data, and print what was left out, before anything is trained."""
    assert suite.groups
    if console is not None:
        for line in suite.remarks:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _require_same_data(arms: Sequence[Arm], out: Path) -> None:
    """Record size and time of change of the files behind data.source; raises UserError if they have changed.

    Cells of different data must not be paired and averaged.
    """
    sections = [getattr(arm.config, "data", None) for arm in arms]
    named = [getattr(data, key, None) for data in sections for key in ("source", "eval_source")]
    sources = dict.fromkeys(source for source in named if isinstance(source, str) and source)  # most arms share theirs
    versions = {
        source: [[*version] for version in file_versions(files_behind(Path(source).expanduser()))] for source in sources
    }
    file = out / DATA
    before = read_json(file) if file.exists() else {}
    if changed := [source for source, files in versions.items() if before.get(source, files) != files]:
        raise UserError(f"{', '.join(changed)} changed since {out} was begun with it; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, {**before, **versions})


def _jobs_before(out: Path) -> int:
    """How many cells were trained at a time in an earlier call of the study."""
    file = out / results.RESULTS
    return read_json(file)["jobs"] if file.exists() else 1


def _first_scored(cells: Sequence[Cell]) -> Cell:
    return next(cell for cell in cells if cell.scores_file.exists())
