"""Scores of a trained cell by test item, so that cells can be paired, in the folder of the run's evaluations.

A cell is scored on all tasks of its recipe, or on those of a suite, and so is its initialisation. Baselines without
learning depend only on the tasks and are scored once a study. The code is that of `openjepa eval`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.api import Run, load
from openjepa.core.experiment import Experiment
from openjepa.core.json_files import read_json
from openjepa.core.rundir import write_json
from openjepa.core.tasks import Task
from openjepa.evals.baselines import baselines_for
from openjepa.evals.features import embedder_of
from openjepa.evals.scores import Score
from openjepa.evals.search import WORDS as BM25
from openjepa.evals.suite import no_vectors, own_columns, require_texts, score_column
from openjepa.evals.suite_file import Suite
from openjepa.studies import costs
from openjepa.studies.cells import scores_file

Scores = dict[str, Score]


def loaded(path: Path) -> Run:
    """The run of a cell, on the kind of device that it was trained on; `prepare` saw that its code is the arm's."""
    run = load(path, trust_code=True)
    return run.to(run.config.train.accelerator)


RUN = "run"
START = "init"


@dataclass(frozen=True)
class Scored:
    """A finished cell: scores by column and measure, and the facts of its training."""

    columns: dict[str, Scores]  # "run" and "init"; or baselines by name
    facts: dict[str, Any]  # skill, verdict, kind, train_s, tokens, flops and steps


def score(run: Run, suite: Suite | None = None) -> None:
    """Score a trained run and its initialisation on all tasks; write evals/study*.{json,npz}."""
    groups = _groups(run, suite)
    start = run.fresh()
    columns: dict[str, Scores] = {RUN: {}, START: {}}
    for column, experiment in ((RUN, run.experiment), (START, start)):
        for tasks in groups:
            embedder = embedder_of(experiment)
            columns[column] |= score_column(tasks, column, embedder, experiment.method, experiment.compute)
    write(scores_file(run.path, suite), Scored(columns, _facts(run, start)))


def read(file: Path) -> Scored:
    """Read the scores that `score` or `references` wrote."""
    values = read_json(file)
    columns = {}
    with np.load(file.with_suffix(".npz")) as arrays:
        for column, measures in values["columns"].items():
            columns[column] = {
                name: Score(
                    arrays[f"items/{column}/{name}"],
                    found["chance"],
                    arrays.get(f"gold/{column}/{name}"),
                    found.get("asked"),
                    arrays.get(f"groups/{column}/{name}"),
                    found["control"],
                )
                for name, found in measures.items()
            }
    return Scored(columns, values["facts"])


def references(run: Run, file: Path, suite: Suite | None = None) -> Scored:
    """Scores of baselines without learning: TF-IDF (and BM25) where tasks have texts, raw pixels for images, ..."""
    if not file.exists():
        columns: dict[str, Scores] = {}
        for tasks in _groups(run, suite):
            for name, embed in baselines_for(run.experiment, tasks).items():
                columns.setdefault(name, {}).update(score_column(tasks, name, embed))
            if ranked := [task for task in tasks if BM25 in own_columns(task)]:
                columns.setdefault(BM25, {}).update(score_column(ranked, BM25, no_vectors))
        write(file, Scored(columns, {}))
    return read(file)


def _groups(run: Run, suite: Suite | None) -> list[list[Task]]:
    """The tasks, in groups that share a baseline's vocabulary."""
    if suite is None:
        return [run.tasks()]
    require_texts(run.experiment, run.recipe)
    return [*suite.groups.values()]


def write(file: Path, scored: Scored) -> None:
    """Write scores for `read`: figures in `file`, items in an .npz file next to it."""
    arrays: dict[str, np.ndarray] = {}
    for column, scores in scored.columns.items():
        arrays |= {f"items/{column}/{name}": found.items for name, found in scores.items()}
        arrays |= {f"gold/{column}/{name}": found.gold for name, found in scores.items() if found.gold is not None}
        arrays |= {
            f"groups/{column}/{name}": found.groups for name, found in scores.items() if found.groups is not None
        }
    np.savez_compressed(file.with_suffix(".npz"), **arrays)  # ty: ignore[invalid-argument-type]
    columns = {column: _values(scores) for column, scores in scored.columns.items()}
    write_json(file, {"facts": scored.facts, "columns": columns})  # last: if it exists, so do the items


def _values(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    return {
        name: {"value": one.value, "chance": one.chance, "asked": one.asked, "control": one.control}
        for name, one in scores.items()
    }


def _facts(run: Run, start: Experiment) -> dict[str, Any]:
    summary = run.summary()
    tokens = sum(row["tokens"] for row in run.folder.log_rows())
    facts = {name: summary[name] for name in ("steps", "train_s", "skill", "verdict")}
    flops_per_token = costs.measure(start, costs.COUNTED).flops_per_token
    return facts | {"kind": summary["health"].get("kind"), "tokens": tokens, "flops": flops_per_token * tokens}
