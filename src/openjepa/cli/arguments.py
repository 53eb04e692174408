"""The free part of a command line: a recipe and settings, in any order and in any of four spellings.

    t_jepa train.steps=100 --train.steps 100 --train.steps=100 --steps 100

Words only become "key=value" strings here; the configuration validates keys and values.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from openjepa.core.errors import UserError

Preset = Annotated[str | None, typer.Option("--preset", help="A shipped size (openjepa recipes); default tiny.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A YAML file instead of a preset.")]


def words_of(context: typer.Context, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """`split_words` for the verb of this context, whose options it knows."""
    names = [name for parameter in context.command.params for name in parameter.opts]
    return split_words(words, [name for name in names if name.startswith("--")])


def split_words(words: Sequence[str], options: Sequence[str] = ()) -> tuple[str | None, list[str]]:
    """(recipe or None, overrides) of the words left over by the option parser.

    `options` are those of the verb, for a hint where one of them is mistyped. Raises UserError for a second bare word.
    """
    recipe: str | None = None
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            key, sep, value = word[2:].partition("=")
            if not sep:
                value = "true" if not rest or rest[0].startswith("--") else rest.pop(0)
            _reject_mistyped(key, options)
            overrides.append(f"{key.replace('-', '_')}={value}")
        elif word.startswith("-"):
            raise UserError(f"no option {word}; settings are written key=value or --key value")
        elif "=" in word:
            if (option := f"--{word.partition('=')[0].replace('_', '-')}") in options:
                raise UserError(f"{word}: this is an option, write {option} {word.partition('=')[2]}")
            overrides.append(word)
        elif recipe is None:
            recipe = word
        else:
            raise UserError(f"{word!r} is neither an option nor key=value, and the recipe is already {recipe!r}")
    return recipe, overrides


def _reject_mistyped(key: str, options: Sequence[str]) -> None:
    near = difflib.get_close_matches(f"--{key}", options, n=1, cutoff=0.85)
    if near:
        raise UserError(f"no option --{key}; did you mean {near[0]}?")
