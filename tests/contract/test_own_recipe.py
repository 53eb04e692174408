"""A method of one's own in a file: every verb works on its run, from any folder, after the file has changed or gone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from openjepa import api
from openjepa.cli import main
from openjepa.core.locate import locate_recipe
from openjepa.studies.factors import ablation_arms
from tests.tiny import TINY

RECIPE = '''"""My method: T-JEPA with a scale of its own."""
from openjepa.core.config import BaseConfig
from openjepa.data.text.sources import DataConfig
from openjepa.recipes import t_jepa


class Extra(DataConfig):
    """A data section of its own."""


class Config(t_jepa.Config):
    """Settings."""

    data: Extra = Extra()
    scale: float = 1.0
    """nothing"""


def build(config, context):
    return t_jepa.build(config, context)
'''


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe file that is trained by a relative path, from its own folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "home" / "my_method.py"
    file.write_text(RECIPE)
    monkeypatch.chdir(file.parent)
    return file


def test_a_file_is_one_module_until_it_changes(recipe: Path) -> None:
    first = locate_recipe("./my_method.py")
    assert locate_recipe(str(recipe)) is first
    assert first.Config() == locate_recipe("my_method.py").Config()
    recipe.write_text(RECIPE.replace("scale: float = 1.0", "scale: float = 2.0"))
    assert locate_recipe("./my_method.py").Config().scale == 2.0


def test_a_file_that_fails_is_executed_again(recipe: Path) -> None:
    recipe.write_text("raise RuntimeError('once')")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="once"):
            locate_recipe("./my_method.py")


def test_arms_of_an_own_recipe_are_compared_by_value(recipe: Path) -> None:
    """Equal settings are equal: an arm that is the base is dropped, and data sections are found to be the same."""
    arms = ablation_arms("./my_method.py", None, None, ["scale=1.0,2.0", *TINY])
    assert [arm.config.scale for arm in arms] == [1.0, 2.0]
    assert len({type(arm.config) for arm in arms}) == 1


@pytest.mark.slow
def test_a_run_opens_from_any_folder_without_its_recipe_file(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = [*TINY, "train.steps=4", "train.checkpoint_every=2"]
    assert main(["train", "./my_method.py", *words, "--out", str(out), "--no-eval"]) == 0
    texts = ["the chef cooked", "a train"]
    vectors = api.load(out).encode(texts)
    recipe.write_text("raise RuntimeError('edited since')")
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(api.load(out).encode(texts), vectors)
    recipe.unlink()
    for verb in (["eval"], ["diagnose"], ["report"], ["masks"], ["similar", "a text", "another"]):
        assert main([verb[0], str(out), *verb[1:]]) == 0, verb
    (out / "checkpoints" / "step-000004").rename(tmp_path / "gone")
    assert main(["train", "--resume", str(out), "--no-eval"]) == 0
    np.testing.assert_array_equal(api.load(out).encode(texts), vectors)
    capsys.readouterr()
    assert main(["check", str(out / "assets" / "recipe.py"), *TINY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
