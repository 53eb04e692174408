"""Factors of an ablation: `mask.ratio=0.3,0.5,0.7` has three values, `train.steps=200` is a setting of all arms.

Where no key has several values, a single value is a factor, too: `mask.ratio=0.3` is compared with the preset's value.

One factor at a time (default): the preset, and every value on its own in place of the preset's. As a grid: every
combination. Both are compared with the preset's values, which are always trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from openjepa.core.config import BaseConfig, override_key
from openjepa.core.configure import configure
from openjepa.core.errors import ConfigError, UserError
from openjepa.studies.cells import Arm

BASE = "base"
OPENING = "[{"
CLOSING = "]}"
QUOTES = "'\""


def split_values(text: str) -> list[str]:
    """YAML values between the commas of `text`; commas within brackets or quotes belong to a value."""
    values = [""]
    depth = 0
    quote = ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES and not values[-1].strip():  # a quote within a word is a letter
            quote = letter
        elif letter in OPENING + CLOSING:
            depth += 1 if letter in OPENING else -1
        if letter == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += letter
    return [value.strip() for value in values]


def split_factors(overrides: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(factors: key -> values, settings for all) of "key=value" strings. Raises UserError for an empty value."""
    factors: dict[str, list[str]] = {}
    fixed = []
    for item in overrides:
        key, _, text = item.partition("=")
        values = split_values(text)
        if len(values) == 1:
            fixed.append(item)
        elif "" in values:
            raise UserError(f"{item}: there is an empty value between its commas")
        elif key in factors:
            raise UserError(f"{key} is given twice; list all of its values once")
        else:
            factors[key] = list(dict.fromkeys(values))
    return factors, fixed


def single_factors(settings: Sequence[str], config: BaseConfig) -> tuple[dict[str, list[str]], list[str]]:
    """`split_factors` where every key has one value: which are compared with the preset's, and which are for all arms.

    A single setting is compared. Of several, those of the sections train and data are for all arms, and the others are
    compared. Raises UserError if that leaves none.
    """
    keys = [config.setting_key(override_key(item)) for item in settings]
    shared = [key.split(".")[0] in ("train", "data") and len(settings) > 1 for key in keys]
    factors = {
        key: [item.partition("=")[2].strip()]
        for key, item, for_all in zip(keys, settings, shared, strict=True)
        if not for_all
    }
    if not factors:
        which = f"which of {', '.join(keys)} is varied? " if keys else ""
        raise UserError(f"nothing to ablate: {which}give a key several values, such as mask.ratio=0.3,0.5,0.7")
    return factors, [item for item, for_all in zip(settings, shared, strict=True) if for_all]


def single_values(arms: Sequence[Arm]) -> str | None:
    """A sentence with the comparisons, where every factor has one value besides the preset's; else None."""
    base, *others = arms
    changed = [key for arm in others for key in arm.changed]
    if len(set(changed)) < len(changed) or any(len(arm.changed) > 1 for arm in others):
        return None
    pairs = [
        f"{arm.label} with the preset's own {_value_at(base.config, key)}" for arm in others for key in arm.changed
    ]
    return f"{len(arms)} arms: comparing {', '.join(pairs)}"


def ablation_arms(
    recipe: str,
    preset: str | None,
    config: str | Path | None,
    overrides: Sequence[str],
    grid: bool = False,
) -> list[Arm]:
    """The preset first, then every arm that differs from all before it. Raises UserError or ConfigError.

    All configurations are validated here; errors of building them are found by `trial.require_buildable`.
    """
    varied, fixed = split_factors(overrides)
    if not varied:
        varied, fixed = single_factors(fixed, configure(recipe, preset, config)[1])
    _, base = configure(recipe, preset, config, fixed)
    factors = {base.setting_key(override_key(key)): values for key, values in varied.items()}
    if "train.seed" in factors:
        raise UserError("train.seed is varied for every arm: give --seeds N")
    changes: list[dict[str, str]] = [{key: value} for key, values in factors.items() for value in values]
    if grid:
        changes = [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]
    arms = [Arm(BASE, recipe, base)]
    problems = []
    for change in changes:
        settings = [f"{key}={value}" for key, value in change.items()]
        try:
            _, values = configure(recipe, preset, config, [*fixed, *settings])
        except ConfigError as error:
            problems.append(str(error))
            continue
        if all(values != arm.config for arm in arms):
            arms.append(Arm(" ".join(settings), recipe, values, {key: _value_at(values, key) for key in change}))
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)))
    if len(arms) == 1:
        raise UserError(f"nothing to ablate: {', '.join(factors)} takes only the values that {recipe} has already")
    return arms


def _value_at(config: BaseConfig, key: str) -> Any:
    """The validated value of a dotted key, in JSON types."""
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value
