"""Names to recipes and functions, and a helpful line for every way to get them wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openjepa.core.errors import UserError
from openjepa.core.locate import (
    built_in_recipes,
    locate_function,
    locate_recipe,
    presets,
    recipe_summary,
)

RECIPE = '''"""Mine: a recipe of my own."""
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Config:
    steps: int = 1

def build(config, context):
    return "built"
'''


def test_built_in_recipes_are_found_and_say_what_they_are() -> None:
    assert "t_jepa" in built_in_recipes()
    for name in built_in_recipes():
        assert recipe_summary(name).endswith(".")
        assert locate_recipe(name).__name__ == f"openjepa.recipes.{name.replace('/', '.')}"
    assert "baselines/mlm" in built_in_recipes()


def test_summaries_and_presets_import_no_recipe() -> None:
    code = (
        "import sys; from openjepa.core.locate import *\n"
        "[(recipe_summary(name), presets(name)) for name in built_in_recipes()]\n"
        "print([m for m in sys.modules if m.startswith('openjepa.recipes.')], 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] False"


def test_presets_are_yaml_files_by_name() -> None:
    assert all(file.is_file() and file.stem == name for name, file in presets("t_jepa").items())
    assert presets("no_such_recipe") == {}


def test_a_file_is_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "my_recipe.py").write_text(RECIPE)
    module = locate_recipe(str(tmp_path / "my_recipe.py"))
    assert module.build(module.Config(), None) == "built"


def test_a_module_is_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_package_of_mine").mkdir()
    (tmp_path / "some_package_of_mine" / "method.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    assert locate_recipe("some_package_of_mine.method").build(None, None) == "built"
    assert locate_function("some_package_of_mine.method:build")(None, None) == "built"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t_jepe", "did you mean 't_jepa'"),
        ("nothing_like_it_at_all", "known: "),
        ("", "unknown recipe"),
        ("no_such_package.recipe", "no module named 'no_such_package'"),
        ("gone.py", "no recipe file at gone.py"),
        ("json.decoder", "has no `Config`"),
        ("./my_recipe", r"a recipe file ends in \.py"),
        ("../my_recipe", r"a recipe file ends in \.py"),
        ("..", r"a recipe file ends in \.py"),
        ("runs/tiny.yaml", "--config"),
    ],
)
def test_a_wrong_recipe_is_named(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        locate_recipe(name)


def test_a_file_that_lacks_build_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("Config = dict\n")
    with pytest.raises(UserError, match="has no `build`"):
        locate_recipe(str(tmp_path / "half.py"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("math", "package.module:function"),
        ("math:", "package.module:function"),
        (":sqrt", "package.module:function"),
        ("no_such_module:f", "no module named 'no_such_module'"),
        ("math:sqrd", "did you mean 'sqrt'"),
        ("math:pi", "is no function but a float"),
        (".losses:mse", "full name is needed"),
    ],
)
def test_a_wrong_function_is_named(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        locate_function(name)


def test_a_function_is_found() -> None:
    assert locate_function("math:sqrt")(9) == 3
