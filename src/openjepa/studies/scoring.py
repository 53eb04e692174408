"""What a trained cell knows, test item by test item, so that cells can be paired: kept beside the run's evaluations.

A cell is scored on all tasks of its recipe, and so is its own initialisation. Baselines without learning depend on the
tasks alone and are asked once a study. Every figure is made by the code that `openjepa eval` uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.api import Run
from openjepa.core.experiment import Experiment
from openjepa.core.rundir import read_json, read_jsonl, write_json
from openjepa.evals.baselines import has_words, tfidf_for
from openjepa.evals.features import Embedder, embed_all
from openjepa.evals.scores import Score
from openjepa.evals.suite import score_column
from openjepa.studies import costs
from openjepa.studies.cells import scores_file

Scores = dict[str, Score]
RUN, START = "run", "init"


@dataclass(frozen=True)
class Scored:
    """A finished cell: scores by column and measure, and what training took."""

    columns: dict[str, Scores]  # "run" and "init"; or baselines by name
    facts: dict[str, Any]  # skill, verdict, kind, train_s, tokens, flops and steps


def score(run: Run) -> None:
    """Ask everything of a trained run and of its initialisation; keep it in evals/study.{json,npz}."""
    tasks, start = run.tasks(), run.fresh()
    columns = {
        column: score_column(tasks, column, _embedder(experiment), experiment.method)
        for column, experiment in ((RUN, run.experiment), (START, start))
    }
    _write(scores_file(run.path), Scored(columns, _facts(run, start)))


def read(file: Path) -> Scored:
    """What `score` or `references` wrote."""
    kept, columns = read_json(file), {}
    with np.load(file.with_suffix(".npz")) as arrays:
        for column, measures in kept["columns"].items():
            columns[column] = {
                name: Score(arrays[f"items/{column}/{name}"], found["chance"], arrays.get(f"gold/{column}/{name}"))
                for name, found in measures.items()
            }
    return Scored(columns, kept["facts"])


def references(run: Run, file: Path) -> Scored:
    """Baselines without learning on the tasks of `run`: TF-IDF where tasks show texts, raw pixels for images, ..."""
    if not file.exists():
        tasks = run.tasks()
        embedders: dict[str, Embedder] = dict(run.experiment.baselines)
        if not embedders and has_words(tasks):
            embedders["tfidf"] = tfidf_for(tasks)
        _write(file, Scored({name: score_column(tasks, name, embed) for name, embed in embedders.items()}, {}))
    return read(file)


def _write(file: Path, scored: Scored) -> None:
    arrays: dict[str, np.ndarray] = {}
    for column, scores in scored.columns.items():
        arrays |= {f"items/{column}/{name}": found.items for name, found in scores.items()}
        arrays |= {f"gold/{column}/{name}": found.gold for name, found in scores.items() if found.gold is not None}
    np.savez_compressed(file.with_suffix(".npz"), **arrays)  # ty: ignore[invalid-argument-type]
    columns = {column: _values(scores) for column, scores in scored.columns.items()}
    write_json(file, {"facts": scored.facts, "columns": columns})  # last: whoever sees it sees the items as well


def _values(scores: Mapping[str, Score]) -> dict[str, dict[str, float]]:
    return {name: {"value": found.value, "chance": found.chance} for name, found in scores.items()}


def _facts(run: Run, start: Experiment) -> dict[str, Any]:
    summary = run.summary()
    tokens = sum(row["tokens"] for row in read_jsonl(run.folder.metrics))
    kept = {name: summary[name] for name in ("steps", "train_s", "skill", "verdict")}
    each = costs.measure(start, costs.COUNTED).flops_per_token
    return kept | {"kind": summary["health"].get("kind"), "tokens": tokens, "flops": each * tokens}


def _embedder(experiment: Experiment) -> Embedder:
    return lambda inputs: embed_all(experiment.method, experiment.prepare, inputs)
