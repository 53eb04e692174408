"""The pages of the documentation, and what can be executed on them, in the order in which it stands there.

Commands are lines of indented blocks and of `bash` blocks that begin with the name of a program. `python` blocks hold
Python, `text` blocks output, `yaml` blocks files. Files of the repository that a page shows in full have tests of their
own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OUTSIDE = ("README.md", "CONTRIBUTING.md")  # pages of the repository that are not on the site
SITE = tuple(sorted(page.relative_to(ROOT).as_posix() for page in DOCS.rglob("*.md")))
PROGRAMS = ("openjepa", "python", "pip", "make", "source", "git", "docker", ".venv/bin/pip")
LANGUAGES = ("python", "bash", "text", "yaml")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN_FILE = re.compile(r"^<!-- generated: file (\S+) -->$", re.MULTILINE)
COMMENT = re.compile(r" +# .*$")


class Step(NamedTuple):
    """One thing on a page that can be executed."""

    kind: str  # "command" or "python"
    text: str


def fences(page: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block of a page."""
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


def shown_files(page: str) -> list[str]:
    """Files of the repository that a page shows in full."""
    return SHOWN_FILE.findall((ROOT / page).read_text(encoding="utf-8"))


def steps(page: str) -> Iterator[Step]:
    """Commands and Python blocks in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    after = 0
    for fence in FENCE.finditer(text):
        yield from commands_in(text[after : fence.start()], indent="    ")
        language, content = fence.groups()
        if language == "python":
            yield Step("python", content)
        elif language == "bash":
            yield from commands_in(content, indent="")
        after = fence.end()
    yield from commands_in(text[after:], indent="    ")


def commands_in(text: str, indent: str) -> Iterator[Step]:
    """Lines that begin with a program's name behind just this indent, without comments; `\\` goes on in the next."""
    joined = re.sub(r" *\\\n *", " ", text)
    for line in joined.split("\n"):
        command = line.removeprefix(indent)
        if line.startswith(indent) and command.startswith(tuple(f"{program} " for program in PROGRAMS)):
            yield Step("command", COMMENT.sub("", command).strip())
