"""From a recipe's name and what the user gave to a validated configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from openjepa.core.errors import UserError, did_you_mean
from openjepa.core.locate import locate_recipe, presets
from openjepa.core.values import read_yaml

DEFAULT_PRESET = "tiny"


def configure(
    recipe: str,
    preset: str | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
) -> tuple[ModuleType, Any]:
    """The recipe's module and its validated config: a preset or a file, then `overrides` and `given` on top.

    What these leave out keeps the defaults of the recipe's `Config`, which are its preset tiny. `given` are Python
    values by key, see `BaseConfig.load`. Raises UserError naming what is wrong.
    """
    module = locate_recipe(recipe_with(preset, recipe))
    if preset is not None and config is not None:
        raise UserError("give either a preset or a config file, not both")
    values: Mapping[str, Any] = {}
    if config is not None:
        values = _settings_in(Path(config))
    elif (shipped := presets(recipe)) or preset:
        name = preset or DEFAULT_PRESET
        if name not in shipped:
            known = f"it has: {', '.join(shipped)}" if shipped else "it ships none"
            raise UserError(f"{recipe} has no preset {name!r}{did_you_mean(name, shipped)}; {known}")
        values = _settings_in(shipped[name])
    return module, module.Config.load(values, overrides, given)


def recipe_with(preset: str | None, recipe: str) -> str:
    """The recipe that a preset of `recipe` is of: itself, or a variant that the preset's file names."""
    file = presets(recipe).get(preset or DEFAULT_PRESET)
    return recipe if file is None else recipe_of(file)


def _settings_in(file: Path) -> dict[str, Any]:
    return {key: value for key, value in read_yaml(file).items() if key != "recipe"}


def recipe_of(config: Path) -> str:
    """The recipe that a configuration file names. Raises UserError if it names none."""
    recipe = read_yaml(config).get("recipe")
    if not isinstance(recipe, str):
        raise UserError(f"{config} names no recipe; add a line such as `recipe: t_jepa`, or give the recipe")
    return str(recipe)
