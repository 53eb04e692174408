"""The verb `masks`: a page of a recipe's masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openjepa.cli.arguments import ConfigFile, Preset, words_of
from openjepa.cli.compute import TrustCode
from openjepa.cli.output import AsJson, print_json, remark, stderr, stdout
from openjepa.core.errors import UserError


def masks(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="RUN|RECIPE|KEY=VALUE", help="A run folder or a recipe, and settings.")
    ],
    preset: Preset = None,
    config: ConfigFile = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page; default RUN/masks.html or masks-RECIPE.html.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, max=64, help="Samples to show.")] = 6,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page with a recipe's masks over real samples, and figures over 512 of them.

    Texts and images are shown with their context and hidden part, drawn as in training, in two epochs; also how often
    each position is chosen, shares, the smallest context, and overlaps of blocks and of epochs, and a remark where the
    masks cannot follow the settings. Nothing is trained, so settings can be tried out.

    Examples:
      openjepa masks i_jepa
      openjepa masks i_jepa mask.strategy=random mask.ratio=0.75 --out random.html
      openjepa masks runs/first
    """
    from openjepa.pages.masks.figures import figures, to_json
    from openjepa.pages.masks.html import mask_settings, page
    from openjepa.pages.masks.sampling import built, sample
    from openjepa.pages.writing import write_page

    target, overrides = words_of(context, words)
    if target is None:
        raise UserError("give a run folder or a recipe (openjepa masks i_jepa)")
    with stderr().status("reading samples"), built(target, preset, config, overrides) as (recipe, settings, experiment):
        sampled = sample(experiment, samples)
        remarks = experiment.remarks()
    statistics = figures(sampled)
    is_run = Path(target, "config.yaml").is_file()
    file = out or (Path(target, "masks.html") if is_run else Path(f"masks-{Path(recipe).stem}.html"))
    command = " ".join(["openjepa masks", target, *overrides])
    write_page(page(recipe, settings, sampled, statistics, command, remarks), file)
    for line in remarks:
        remark(line)
    if as_json:
        used = {"settings": mask_settings(settings), "remarks": list(remarks)}
        print_json({"page": str(file), "recipe": recipe, **used, **to_json(statistics, sampled)})
        return
    if used := mask_settings(settings):
        stdout().print("mask: " + ", ".join(f"{key}={value}" for key, value in used.items()), markup=False)
    shares = [
        f"{name.removesuffix('_share')} {figure.mean:.1%} ({figure.least:.0%} to {figure.most:.0%})"
        for name, figure in statistics.items()
        if name in ("hidden_share", "shown_share")
    ]
    least = statistics["shown_positions"].least
    most = statistics["positions"].most
    smallest = f"smallest context {least:.0f} of {most:.0f} positions"
    stdout().print(", ".join([*shares, smallest]), soft_wrap=True)
    stdout().print(f"page: {file}", soft_wrap=True, markup=False)
