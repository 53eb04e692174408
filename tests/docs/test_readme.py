"""What the README and the guides name exists: files, recipes, verbs, presets and keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openjepa.cli import app
from openjepa.core.configure import configure
from openjepa.core.locate import built_in_recipes

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "METHODS.md",
        "CONTRIBUTING.md",
        "docs/how-to/train-on-your-own-text.md",
        "docs/how-to/train-on-your-own-images.md",
        "docs/how-to/read-a-run.md",
        "docs/how-to/explore-in-the-browser.md",
        "docs/how-to/evaluate.md",
        "docs/how-to/find-similar-tickets.md",
        "docs/how-to/export-and-search.md",
        "docs/results/recipes.md",
    )
]
LINKING = [*(ROOT / name for name in ("README.md", "METHODS.md", "CONTRIBUTING.md", "benchmarks/README.md")),
           *sorted((ROOT / "docs").rglob("*.md"))]  # fmt: skip
COMMAND = re.compile(r"^ {4}openjepa (.+?)(?: +#.*)?$", re.MULTILINE)


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_linked_files_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_real_verbs_presets_and_keys(page: Path) -> None:
    verbs = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    for line in COMMAND.findall(page.read_text()):
        words = line.split()
        assert words[0] in verbs, line
        recipe = next((word for word in words if word in built_in_recipes()), None)
        if words[0] in ("train", "check") and recipe is not None:
            preset = words[words.index("--preset") + 1] if "--preset" in words else None
            configure(recipe, preset, None, [word for word in words if re.match(r"[a-z_.]+=", word)])


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_commands_are_set_apart_from_prose(page: Path) -> None:
    assert re.findall(r"^openjepa .*", page.read_text(), re.MULTILINE) == []


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^ {4}make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)) <= targets
