"""What the README and the guides name exists: files, recipes, verbs, presets and keys."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from openjepa.cli import app
from openjepa.core.configure import configure
from openjepa.core.locate import built_in_recipes
from tests.docs.pages import OUTSIDE, ROOT, SITE

PAGES = [ROOT / page for page in (*OUTSIDE, *SITE)]
LINKING = [*PAGES, ROOT / "benchmarks/README.md"]
COMMAND = re.compile(r"^ {4}openjepa (.+?)(?: +#.*)?$", re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_linked_files_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_name_real_verbs_presets_and_keys(page: Path) -> None:
    verbs = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    for line in COMMAND.findall(page.read_text()):
        words = shlex.split(line.rstrip("\\"))
        assert words[0] in verbs, line
        recipe = next((word for word in words if word in built_in_recipes()), None)
        if words[0] in ("train", "check") and recipe is not None:
            preset = words[words.index("--preset") + 1] if "--preset" in words else None
            configure(recipe, preset, None, [word for word in words if re.match(r"[a-z_.]+=", word)])


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_commands_are_set_apart_from_prose(page: Path) -> None:
    assert re.findall(r"^openjepa .*", page.read_text(), re.MULTILINE) == []


def test_layers_in_contributing_are_those_that_are_checked() -> None:
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer.replace("openjepa.", "") for layer in contract["layers"]]
    (block,) = re.findall(r"^(?: {4,}.*->.*\n)+", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert re.split(r"\s*->\s*", " ".join(block.split())) == layers


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^ {4}make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)) <= targets
