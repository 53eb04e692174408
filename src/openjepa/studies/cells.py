"""Arms and cells of a study. An arm is one configuration; a cell is one arm with one seed, in its own run folder.

A cell's state is its folder, named after its arm. So an interrupted study resumes where it stopped, and one with more
values or seeds keeps its finished cells.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openjepa.core.config import TrainConfig
from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json
from openjepa.core.rundir import RunDir
from openjepa.evals.suite_file import Suite

LONGEST_NAME = 80  # characters of a folder


@dataclass(frozen=True)
class Arm:
    """One configuration under study. The first arm of a study is the reference of the others."""

    label: str
    recipe: str
    config: Any  # the recipe's Config: a BaseConfig with a section `train`
    changed: dict[str, Any] = field(default_factory=dict)  # dotted key -> value, where the study varies keys

    def with_seed(self, seed: int) -> Any:
        """The configuration of one cell."""
        return self.config.model_copy(update={"train": self.config.train.model_copy(update={"seed": seed})})


@dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: Arm
    seed: int
    path: Path
    suite: Suite | None = None  # tasks to score it on; None = those of its recipe

    @property
    def folder(self) -> RunDir:
        return RunDir(self.path)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.arm.config.train.steps

    @property
    def done_steps(self) -> int:
        """Steps logged so far."""
        return max((row["step"] for row in self.folder.log_rows()), default=0)

    @property
    def stopped(self) -> str | None:
        """The reason why training stopped (a non-finite gradient, say), which would stop it again; else None."""
        return stop_reason(self.path)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return finished(self.path, self.suite)

    @property
    def scores_file(self) -> Path:
        return scores_file(self.path, self.suite)


def cells_of(arms: Sequence[Arm], seeds: int, out: Path, suite: Suite | None = None) -> list[Cell]:
    """Every arm with `seeds` seeds, counted up from its `train.seed`. Seed by seed, so that early results pair."""
    if seeds < 1:
        raise UserError(f"a study needs at least 1 seed (given: {seeds})")
    if any(arm.config.train.devices > 1 for arm in arms):
        raise UserError("a study trains every cell in one process: set train.devices=1; --jobs trains more at once")
    return [
        Cell(arm, seed, cell_folder(out, arm.label, seed), suite)
        for number in range(seeds)
        for arm in arms
        for seed in [arm.config.train.seed + number]
    ]


def prepare(cells: Sequence[Cell]) -> None:
    """Create the run folders that do not exist. Raises UserError for a folder with another configuration."""
    for cell in cells:
        wanted = cell.arm.with_seed(cell.seed).with_absolute_paths()
        if cell.folder.config_file.is_file():
            recipe, values = cell.folder.recipe_and_values()
            if recipe != cell.arm.recipe or type(wanted).load(values) != wanted:  # settings it did not know: defaults
                raise UserError(
                    f"{cell.path} holds a run with other settings ({', '.join(_differing(values, wanted)) or recipe}); "
                    "choose another --out, or remove that folder"
                )
            _require_own_code(cell)
        else:
            RunDir.create(cell.path, cell.arm.recipe, wanted)


def _require_own_code(cell: Cell) -> None:
    """Raises UserError if the cell's copy of a recipe file is not the arm's: it would be run."""
    copy = cell.folder.recipe_file
    if copy.exists() and (
        not cell.arm.recipe.endswith(".py") or copy.read_bytes() != Path(cell.arm.recipe).read_bytes()
    ):
        raise UserError(f"{copy} is not {cell.arm.recipe} as it is now; choose another --out, or remove {cell.path}")


def cell_folder(out: Path, label: str, seed: int) -> Path:
    """The folder of a study's run of one arm with one seed."""
    return out / "cells" / folder_name(label) / f"seed-{seed}"


def folder_name(label: str) -> str:
    """A readable folder name for a label, different for different labels."""
    name = re.sub(r"[^\w.=,+-]+", "_", label)
    if name == label and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.blake2b(label.encode(), digest_size=4).hexdigest()}"


def scores_file(run: Path, suite: Suite | None = None) -> Path:
    """The file of a cell's scores: one for every suite, so that another suite scores the cells anew."""
    return RunDir(run).evals / f"study{suite_mark(suite)}.json"


def suite_mark(suite: Suite | None) -> str:
    """The mark of a suite in the names of its score files, which changes with the suite and its data."""
    return "" if suite is None else f"-{suite.name}-{suite.key}"


def stop_file(run: Path) -> Path:
    """The file with the reason why a cell stopped."""
    return run / "stopped.json"


def stop_reason(run: Path) -> str | None:
    """The reason in `stop_file`; None if the cell did not stop."""
    file = stop_file(run)
    return read_json(file)["error"] if file.exists() else None


def finished(run: Path, suite: Suite | None = None) -> bool:
    """Whether nothing is left to do in the folder of a cell: it is trained and scored, or it stopped."""
    return stop_file(run).exists() or scores_file(run, suite).exists()


def processes_for(cells: Sequence[Cell], jobs: int | None) -> int:
    """How many cells to train at a time: `jobs`, or cores / the fewest threads of a cell; one on a GPU."""
    if jobs is not None:
        if jobs < 1:
            raise UserError(f"--jobs must be at least 1 (given: {jobs})")
        return min(jobs, max(1, len(cells)))
    cores = os.cpu_count() or 1
    settings = [cell.arm.config.train for cell in cells]
    if any(map(trains_on_gpu, settings)) or any(train.threads == 0 for train in settings):  # 0 = torch takes all cores
        return 1
    each = min((train.threads for train in settings), default=cores)  # the others are limited to as many
    return max(1, min(cores // each, len(cells)))


def threads_of(train: TrainConfig, at_a_time: int) -> int:
    """CPU threads of a cell where so many are trained at a time: more threads than cores would be slower."""
    share = max(1, (os.cpu_count() or 1) // at_a_time)
    return min(train.threads or share, share)


def trains_on_gpu(train: TrainConfig) -> bool:
    """Whether training with these settings would take a GPU of this machine."""
    import torch

    return torch.cuda.is_available() and train.accelerator != "cpu"


def _differing(values: dict[str, Any], wanted: Any) -> Iterator[str]:
    """Keys in which a folder's configuration differs, as "train.steps=6 there, 8 here"."""
    here = dict(_flat(wanted.model_dump(mode="json")))
    there = dict(_flat(values))
    for key in dict.fromkeys([*there, *here]):
        if there.get(key) != here.get(key):
            yield f"{key}={json.dumps(there.get(key))} there, {json.dumps(here.get(key))} here"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
