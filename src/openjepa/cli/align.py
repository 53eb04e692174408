"""The verb `align`: the effect of the latent prediction on held-out cosines and ranks, in one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from openjepa.cli.arguments import ConfigFile, Preset, words_of
from openjepa.cli.compute import TrustCode
from openjepa.cli.output import AsJson, print_json, stdout
from openjepa.core.errors import UserError
from openjepa.core.tables import folding_table


def align(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="RECIPE|KEY=VALUE|RUN RUN", help="What to train, or finished runs.")
    ],
    preset: Preset = None,
    config: ConfigFile = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for runs and figure; default runs/align-...")
    ] = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Train with and without the latent prediction, and draw the alignment of both with held-out answers.

    For recipes that predict answers and have a `weight` of that term (nano_jepa); trains two runs, one with weight=0.
    latent_alignment.png shows the cosine of the prediction with its answer, with shuffled answers and with random
    directions, and the rank of its answer among at most 100. Finished runs are compared without training.

    Examples:
      openjepa align nano_jepa
      openjepa align nano_jepa weight=2 steps=500 --out runs/study
      openjepa align runs/study/lambda-0 runs/study/lambda-2
    """
    from openjepa import api
    from openjepa.studies import alignment

    folders = [Path(word) for word in words if Path(word, "config.yaml").is_file()]
    if folders:
        if len(folders) < len(words) or preset or config:
            raise UserError("finished runs are not trained again: give run folders only and, optionally, --out")
        result = alignment.compare([api.load(folder) for folder in folders], out or folders[-1])
    else:
        recipe, overrides = words_of(context, words)
        if recipe is None:
            raise UserError("give a recipe (openjepa align nano_jepa) or two run folders")
        result = alignment.study(recipe, preset=preset, config=config, out=out, overrides=overrides)
    if as_json:
        print_json(result)
    else:
        print_alignment(result)


def print_alignment(result: dict[str, Any]) -> None:
    """Print the curves' last points as a table, and the path of the figure."""
    from rich.markup import escape

    names = ("own", "shuffled", "random", "own-shuffled", "MRR", "MRR by chance", "top-1", "top-1 by chance")
    columns = []
    for run in result["runs"]:
        own, shuffled, random = (run[f"{name}_cosine"][-1] for name in ("own", "shuffled", "random"))
        ranks = run["mrr"][-1], run["mrr_chance"], run["top1"][-1], run["top1_chance"]
        columns.append([f"{value:.3f}" for value in (own, shuffled, random, own - shuffled, *ranks)])
    table = folding_table([""], [escape(run["label"]) for run in result["runs"]])
    for row in zip(names, *columns, strict=True):
        table.add_row(*row)
    stdout().print(table)
    stdout().print("cosines of the prediction on held-out questions, at the end of training")
    stdout().print(f"figure: {result['figure']}", soft_wrap=True, markup=False)
