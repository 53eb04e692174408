"""ablate: vary some keys of one recipe, with the same budget and seeds for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from openjepa.core.rundir import default_folder
from openjepa.evals.suite_file import Suite
from openjepa.studies.cells import cell_folder
from openjepa.studies.factors import ablation_arms, single_values
from openjepa.studies.study import conduct
from openjepa.studies.trial import require_buildable


def ablate(
    recipe: str,
    overrides: Sequence[str],
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    grid: bool = False,
    seeds: int = 3,
    out: str | Path | None = None,
    jobs: int | None = None,
    console: Console | None = None,
    suite: Suite | None = None,
) -> dict[str, Any]:
    """Train `recipe` once for every arm and seed, score all cells equally, and compare each arm with the preset.

    Args:
        recipe: as for `api.train`, with `preset` or `config`.
        overrides: "key=value" for all arms, "key=value1,value2" for a factor; see `studies.factors`.
        grid: every combination of values instead of one factor at a time.
        seeds: of every arm, counted up from train.seed.
        out: the study's folder; an existing one is continued. Default `runs/ablate-<recipe>-<time>`.
        jobs: cells trained at a time; default: as many as the cores allow.
        console: where progress is shown; None = nowhere.
        suite: tasks for all cells, instead of the recipe's.

    Returns the content of results.json. Raises UserError for mistakes in the arms before anything is trained.
    """
    arms = ablation_arms(recipe, preset, config, overrides, grid)
    if console is not None and (comparison := single_values(arms)):
        console.print(comparison, markup=False, highlight=False, soft_wrap=True)
    folder = Path(out) if out else default_folder(f"ablate-{Path(recipe).stem}")
    require_buildable([arm for arm in arms if not cell_folder(folder, arm.label, arm.config.train.seed).exists()])
    return conduct(arms, seeds, folder, jobs, {"kind": "ablate", "recipe": recipe, "grid": grid}, console, suite)
