"""What a user says must not get worse: a suite of tasks, judged by people, on the start and on the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openjepa.core.atomic import writing
from openjepa.core.errors import UserError
from openjepa.core.values import as_yaml, read_yaml
from openjepa.evals.scorecard import Scorecard
from openjepa.evals.suite_file import Suite
from openjepa.run.opened import Run

NAME = "guard"
RATED = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Guarded:
    """How guarded measures changed, in points (hundredths)."""

    held: bool  # whether none fell by more than was allowed
    worse: tuple[str, ...]  # measures that fell beyond their interval
    lines: tuple[str, ...]  # one sentence a measure

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def guard_suite(paths: Sequence[Path], folder: Path) -> Suite | None:
    """One suite of all that is guarded, written to `folder`; None if nothing is.

    Raises UserError for what is neither a suite, nor a BEIR folder, nor a file of rated pairs.
    """
    if not paths:
        return None
    tasks: list[Any] = []
    for path in paths:
        if path.suffix in (".yaml", ".yml"):
            Suite.open(path)  # says what is wrong with it
            tasks += [_from(path.parent, task) for task in read_yaml(path)["tasks"]]
        elif (path / "corpus.jsonl").is_file():
            tasks.append({"kind": "retrieval", "name": path.resolve().name, "folder": str(path.resolve())})
        elif path.is_file() and path.suffix in RATED:
            tasks.append({"kind": "sts", "name": path.stem, "file": str(path.resolve())})
        else:
            raise UserError(f"--guard {path}: give a suite (.yaml), a BEIR folder, or rated pairs ({', '.join(RATED)})")
    file = folder / f"{NAME}.yaml"
    with writing(file):
        file.write_text(as_yaml({"name": NAME, "tasks": tasks}), encoding="utf-8")
    return Suite.open(file)


def _from(folder: Path, task: Any) -> dict[str, Any]:
    """A task of a suite in `folder`, with its paths made absolute."""
    keys = ("file", "folder", "train", "test", "source")
    return {key: str((folder / str(value)).resolve()) if key in keys else value for key, value in dict(task).items()}


def guarded(run: Run, suite: Suite, max_loss: float) -> Guarded:
    """Evaluate the run and its start on the suite; `max_loss` points are allowed to each measure."""
    scorecard: Scorecard = run.evaluate_suite(suite)
    lines = []
    held = True
    for name, measure in scorecard.measures.items():
        change = 100 * measure.run_minus_init
        held &= change >= -max_loss
        interval = (
            ""
            if measure.interval is None
            else " (95 %: {:+.1f} to {:+.1f})".format(*(100 * end for end in measure.interval))
        )
        start = measure.values["init"]
        lines.append(f"{name}: {start:.3f} -> {measure.values['run']:.3f}, {change:+.1f} points{interval}")
    return Guarded(held, tuple(scorecard.worse()), tuple(lines))
