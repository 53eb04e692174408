"""The verbs that train and compare many runs: `ablate`, within a recipe, and `compare`, between recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from openjepa.cli.arguments import ConfigFile, Preset, words_of
from openjepa.cli.output import INTERRUPTED, AsJson, Interrupted, print_json, stderr, stdout
from openjepa.core.errors import UserError

Seeds = Annotated[int, typer.Option("--seeds", help="Runs of every arm, with seeds counted up from train.seed.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", help="Cells trained at a time; default: as many as the cores allow.")
]
SuiteFile = Annotated[
    Path | None, typer.Option("--suite", help="A YAML file of tasks for all cells, instead of their recipes'.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the study; an unfinished one is continued.")]


def ablate(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="RECIPE|KEY=VALUE,VALUE", help="What to vary, and settings for all.")
    ],
    preset: Preset = None,
    config: ConfigFile = None,
    grid: Annotated[bool, typer.Option("--grid", help="Every combination; default: one factor at a time.")] = False,
    seeds: Seeds = 3,
    jobs: Jobs = None,
    out: Out = None,
    suite: SuiteFile = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe with other values of some keys, and compare them with the preset's.

    A key with several values is varied, a key with one is set for all. A comma within [] or quotes is no separator.
    Where no key has several values, a single one is compared with the preset's value. Same budget, same seeds;
    skill and probes are compared, in pairs of seeds and test items. Every cell is a run folder; finished cells are
    kept, so the same command with the same --out resumes the study, also with more values or seeds.

    Examples:
      openjepa ablate t_jepa mask.ratio=0.3,0.5,0.7 regularizer.name=vicreg,sigreg,none --out runs/masks
      openjepa ablate t_jepa mask.ratio=0.3,0.7 mask.mean_span=4,16 --grid --seeds 6 steps=300
      openjepa ablate t_jepa mask.ratio=0.3 steps=300
    """
    from openjepa.evals.suite_file import Suite
    from openjepa.studies.ablation import ablate as run

    recipe, overrides = words_of(context, words)
    if recipe is None:
        raise UserError("give a recipe to ablate (openjepa recipes lists them)")
    options: dict[str, Any] = {"preset": preset, "config": config, "grid": grid, "seeds": seeds, "jobs": jobs}
    options["suite"] = suite and Suite.open(suite)
    _study(lambda: run(recipe, overrides, out=out, console=None if as_json else stderr(), **options), as_json)


def compare(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE[:PRESET][+KEY=VALUE] ... [KEY=VALUE ...]", help="Arms, and settings for all."),
    ],
    budget: Annotated[
        str | None, typer.Option("--budget", help="tokens=N, flops=N or minutes=N; default: the first one's tokens.")
    ] = None,
    seeds: Seeds = 3,
    jobs: Jobs = None,
    out: Out = None,
    suite: SuiteFile = None,
    as_json: AsJson = False,
) -> None:
    """Train recipes on the same data and encoder, with the same budget, and compare them.

    All arms use data, tokenizer and encoder of the first; masks, rates and batches are their own. They are compared
    with the first one, in pairs of seeds and test items, in quality and cost. FLOPs are counted on a few real batches.
    Every cell is a run folder; finished cells are kept, so the same command with the same --out resumes the study.

    Arms of different recipes have different tasks and are compared on those they share; --suite has the same tasks for
    all of them. Trained cells are only scored again if the suite, or its data, is another one.

    Examples:
      openjepa compare t_jepa lang_jepa baselines/mlm baselines/simcse --budget flops=2e13 --out runs/objectives
      openjepa compare t_jepa lang_jepa --suite suite.yaml --out runs/objectives
      openjepa compare t_jepa t_jepa+regularizer.name=sigreg baselines/mlm --budget minutes=2 data=corpus.jsonl
    """
    from openjepa.evals.suite_file import Suite
    from openjepa.studies.comparison import compare as run

    arms, overrides = _arms_and_settings(words)
    options: dict[str, Any] = {"budget": budget, "seeds": seeds, "jobs": jobs, "suite": suite and Suite.open(suite)}
    _study(lambda: run(arms, overrides, out=out, console=None if as_json else stderr(), **options), as_json)


def _arms_and_settings(words: list[str]) -> tuple[list[str], list[str]]:
    """Split words into arms and settings; a setting has its "=" before any "+"."""
    settings = [word for word in words if "=" in word.partition("+")[0]]
    return [word for word in words if word not in settings], settings


def _study(run: Callable[[], dict[str, Any]], as_json: bool) -> None:
    try:
        results = run()
    except KeyboardInterrupt as stop:
        raise Interrupted(str(stop), getattr(stop, "exit_code", INTERRUPTED)) from None
    if as_json:
        print_json(results)
        return
    from openjepa.studies.results import FIGURE, RESULTS, TABLE
    from openjepa.studies.table import tables

    console = stdout()
    for table in tables(results):
        console.print(table)
    folder = Path(results["out"])
    console.print(f"results: {folder / RESULTS}  {folder / TABLE}  {folder / FIGURE}", soft_wrap=True, markup=False)
