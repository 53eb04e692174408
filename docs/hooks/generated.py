"""The command line, the settings and files of the repository, put into pages while the site is built.

A page asks for a part by a line of its own:

    <!-- generated: cli -->              every verb with its arguments and options
    <!-- generated: settings t_jepa -->  every setting of a recipe, by section, and what its presets change
    <!-- generated: file examples/x.py -->  a Python file of the repository in full
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from openjepa.cli import app
from openjepa.core.configure import configure
from openjepa.core.describe import Setting, describe
from openjepa.core.locate import presets

ROOT = Path(__file__).parents[2]
ASKED = re.compile(r"^<!-- generated: (\w+) ?(\S*) -->$", re.MULTILINE)
MARKUP = re.compile(r"\[/?(?:bold|dim|italic)\]")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return ASKED.sub(lambda found: "\n".join(PARTS[found.group(1)](found.group(2))), markdown)


def cli(_: str = "") -> Iterator[str]:
    """Every verb, and below a group of verbs those in it."""
    yield from verbs(typer.main.get_command(app).commands, "openjepa")


def verbs(commands: Mapping[str, Any], before: str) -> Iterator[str]:
    for name, command in commands.items():
        if inner := getattr(command, "commands", None):
            yield from verbs(inner, f"{before} {name}")
            continue
        yield f"## `{before} {name}`"
        yield ""
        yield from explained(command.help or "")
        yield from table(["argument or option", "meaning"], [parameter(one) for one in command.params])


def explained(text: str) -> Iterator[str]:
    """The help of a verb: prose as it is, examples and what is indented as code."""
    for paragraph in MARKUP.sub("", text.replace("\b\n", "")).strip().split("\n\n"):
        head, _, rest = paragraph.partition("\n")
        examples = re.fullmatch(r"Examples?:\s*(.*)", head)
        if examples is None:
            yield from (escaped(paragraph), "")
            continue
        lines = [line.strip() for line in [examples.group(1), *rest.split("\n")] if line.strip()]
        yield from ("```console", *lines, "```", "")


def parameter(one: Any) -> list[str]:
    """Spelling and meaning of an argument or option; a default is said where it is a plain value."""
    spelled = ", ".join([*one.opts, *one.secondary_opts])
    if not spelled.startswith("-"):
        spelled = one.metavar or spelled.upper()
    elif not one.is_flag:
        spelled += f" {one.metavar or one.name.upper()}"
    meaning = MARKUP.sub("", one.help or "").strip()
    if isinstance(one.default, str | int | float) and not isinstance(one.default, bool) and "default" not in meaning:
        meaning += f" (default: {one.default})"
    return [code(spelled), escaped(meaning)]


def settings(recipe: str) -> Iterator[str]:
    """Every setting of a recipe, a table a section."""
    _, defaults = configure(recipe, None, None, [])
    rows = list(describe(type(defaults)()))
    for section in dict.fromkeys(section_of(row) for row in rows):
        yield from (f"### `{section}`" if section else "### Settings of the recipe itself", "")
        yield from table(
            ["setting", "default", "meaning, and which values it takes"],
            [[code(row.key), code(shown(row.default)), f"{escaped(row.doc)}<br>{code(row.type)}"] for row in rows
             if section_of(row) == section],
        )  # fmt: skip
    yield from preset_tables(recipe)


def preset_tables(recipe: str) -> Iterator[str]:
    """What each preset sets otherwise than the defaults."""
    for name in presets(recipe):
        _, chosen = configure(recipe, name, None, [])
        changed = [row for row in describe(chosen) if row.value != row.default]
        yield from (f"### Preset `{name}`", "")
        if changed:
            yield from table(["setting", "value"], [[code(row.key), code(shown(row.value))] for row in changed])
        else:
            yield from ("The defaults.", "")


def file(name: str) -> Iterator[str]:
    yield from ("```python", (ROOT / name).read_text(encoding="utf-8").rstrip(), "```")


def section_of(row: Setting) -> str:
    return row.key.rpartition(".")[0].partition(".")[0]


def shown(value: Any) -> str:
    """A value as YAML has it."""
    words = {None: "null", True: "true", False: "false"}
    return str(value) if isinstance(value, list | dict) else words.get(value, str(value))


def escaped(text: str) -> str:
    """Prose in which square brackets are no links, and angle brackets no tags."""
    return text.replace("[", "\\[").replace("<", "&lt;")


def code(text: str) -> str:
    """As code in a cell of a table, where a bar would end the cell."""
    return f"<code>{text.replace('<', '&lt;').replace('|', '&#124;').replace('[', '&#91;')}</code>" if text else ""


def table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
    yield ""


PARTS: dict[str, Callable[[str], Iterator[str]]] = {"cli": cli, "settings": settings, "file": file}
