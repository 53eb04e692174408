"""The verbs `recipes` and `config`: list recipes, show and explain settings, write a configuration file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openjepa.cli.arguments import Preset
from openjepa.cli.compute import TrustCode
from openjepa.cli.output import AsJson, print_json, stdout
from openjepa.core.errors import UserError, did_you_mean
from openjepa.core.tables import folding_table

if TYPE_CHECKING:
    from openjepa.core.config import BaseConfig
    from openjepa.core.describe import Setting

app = typer.Typer(help="Show, explain, check and copy configurations.", no_args_is_help=True)

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in recipe, a .py file or a dotted path.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as for train.")]


def recipes(as_json: AsJson = False) -> None:
    """List the built-in recipes and their presets.

    Example:  openjepa recipes
    """
    from openjepa.core.locate import built_in_recipes, presets, recipe_summary

    names = built_in_recipes()
    if as_json:
        print_json([{"name": name, "summary": recipe_summary(name), "presets": list(presets(name))} for name in names])
        return
    table = folding_table(["recipe", "what it does", "presets"])
    for name in names:
        summary = recipe_summary(name)
        table.add_row(name, summary.partition(": ")[2] or summary, ", ".join(presets(name)))
    stdout().print(table)
    stdout().print("train one:  openjepa train RECIPE --preset PRESET       your own:  openjepa train ./my_method.py")


@app.command("show")
def show(recipe: Recipe, overrides: Overrides = None, preset: Preset = None, as_json: AsJson = False) -> None:
    """Print the full configuration of a recipe as YAML, with every default filled in.

    Example:  openjepa config show t_jepa --preset tiny train.steps=100
    """
    from openjepa.core.values import as_yaml

    _, settings = _configure(recipe, preset, overrides)
    values = settings.model_dump(mode="json")
    if as_json:
        print_json({"recipe": recipe, **values})
    else:
        print(as_yaml({"recipe": recipe, **values}), end="")


@app.command("explain")
def explain(
    recipe: Recipe,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="A key or section, such as mask.")] = None,
    preset: Preset = None,
    every: Annotated[bool, typer.Option("--all", help="Every setting, with its type and its full meaning.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the settings that matter first; a section or a single key in full with KEY, every one with --all.

    Example:  openjepa config explain t_jepa mask
    """
    from rich.text import Text

    from openjepa.core.describe import describe, first_keys

    _, settings = _configure(recipe, preset, None)
    rows = list(describe(settings))
    if key is None and not every and not as_json:
        first = set(first_keys(type(settings)))
        _print_overview(recipe, [row for row in rows if row.key in first], len(rows))
        return
    if key is not None:
        wanted = settings.full_key(key)
        rows = [row for row in rows if f"{row.key}.".startswith(f"{wanted}.")]
        if not rows:
            raise UserError(f"{recipe} has no key {key!r}{did_you_mean(wanted, settings.keys())}")
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    table = folding_table(["key", "type", "default", "value", "meaning"])
    for row in rows:
        changed = row.value != row.default
        words = (row.key, row.type, _shown(row.default), _shown(row.value) if changed else "", row.doc)
        table.add_row(*map(Text, words))  # plain text: rich would take "[trackio]" for markup
    stdout().print(table)
    if any(row.value != row.default for row in rows):
        stdout().print("value: set by the preset where it differs from the default")


def _print_overview(recipe: str, rows: Sequence[Setting], count: int) -> None:
    from rich.text import Text

    table = folding_table(["key", "value", "meaning"])
    for row in rows:
        table.add_row(*map(Text, (row.key, _shown(row.value), row.summary)))
    stdout().print(table)
    sections = dict.fromkeys(row.key.partition(".")[0] for row in rows if "." in row.key)
    stdout().print(
        f"{len(rows)} of {count} settings; all: openjepa config explain {recipe} --all; a section in full: "
        f"openjepa config explain {recipe} {next(iter(sections), 'KEY')}",
        soft_wrap=True,
    )
    stdout().print("The run's folder and size are options: openjepa train RECIPE --out FOLDER --preset NAME")


@app.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML configuration.")],
    overrides: Overrides = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="The recipe, if the file has no `recipe:`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a configuration file; names all mistakes at once and exits with 2 if there are any.

    Example:  openjepa config validate my.yaml
    """
    from openjepa.core.configure import configure, recipe_of

    name = recipe or recipe_of(file)
    configure(name, None, file, overrides or [])
    if as_json:
        print_json({"file": str(file), "recipe": name, "valid": True})
    else:
        print(f"{file} is a valid configuration of {name}")


@app.command("copy")
def copy(
    recipe: Recipe,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: RECIPE.yaml.")] = None,
    preset: Preset = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented YAML file to start from.

    Example:  openjepa config copy t_jepa my.yaml && openjepa train --config my.yaml
    """
    from openjepa.core.atomic import replaced_file
    from openjepa.core.describe import commented_yaml

    _, settings = _configure(recipe, preset, None)
    path = file or Path(f"{Path(recipe).stem}.yaml")
    if path.exists() and not force:
        raise UserError(f"{path} exists; choose another name or give --force")
    with replaced_file(path) as temporary:
        temporary.write_text(commented_yaml(settings, recipe), encoding="utf-8")
    if as_json:
        print_json({"file": str(path), "recipe": recipe})
    else:
        print(f"wrote {path}; train it with: openjepa train --config {path}")


@app.command("move")
def move(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    overrides: Annotated[list[str], typer.Argument(metavar="KEY=PATH", help="Where files are now: data.source=...")],
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Set the new paths of the files that a run was made from: its data, the folder of its base encoder.

    Example:  openjepa config move runs/mine data.source=/archive/corpus.jsonl
    """
    from openjepa import api

    changes = api.relocate(run, overrides)
    if as_json:
        print_json({"run": str(run), "changes": [change._asdict() for change in changes]})
        return
    for change in changes:
        print(f"{change.key}: {change.old} -> {change.new}")
    if not changes:
        print(f"nothing changed: {run} has these already")


def _configure(recipe: str, preset: str | None, overrides: list[str] | None) -> tuple[Any, BaseConfig]:
    from openjepa.core.configure import configure

    return configure(recipe, preset, None, overrides or [])


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)
