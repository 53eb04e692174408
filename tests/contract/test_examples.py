"""Examples run as they stand."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

import openjepa.recipe as recipe_surface
from openjepa.cli import main
from tests.tiny import TINY

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_minimal_jepa_learns(capsys: pytest.CaptureFixture[str]) -> None:
    """Shortened: predictions beat the best constant, and digits are told apart better than by the untrained encoder."""
    figures = runpy.run_path(str(EXAMPLES / "minimal_jepa.py"))["main"](steps=60)
    assert {"loss", "skill", "rank", "knn", "knn pixels", "knn untrained"} == set(figures)
    assert figures["skill"] > 0
    assert figures["knn"] > figures["knn untrained"] + 0.1
    assert "skill" in capsys.readouterr().out


def test_scripts_of_the_tutorials_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As the pages name them, with two steps."""
    pages = sorted((EXAMPLES.parent / "docs" / "tutorials").glob("*.md"))
    scripts = [name for page in pages for name in re.findall(r"^ {4}python (\S+)$", page.read_text(), re.MULTILINE)]
    assert scripts
    for name in scripts:
        script = str(EXAMPLES.parent / name)
        monkeypatch.setattr(sys, "argv", [script, "2"])
        runpy.run_path(script, run_name="__main__")
        assert re.findall(r"^step +(\d+) ", capsys.readouterr().out, re.MULTILINE) == ["0", "1"]


def test_a_run_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """plot_run.py, of a run that its training evaluated."""
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text("".join(json.dumps({"text": f"Text {n} is of kind {n % 3}.", "kind": str(n % 3)})
                                           + "\n" for n in range(120)))  # fmt: skip
    given = ["data=texts.jsonl", "data.label=kind", "data.eval_fraction=0.3", "train.steps=2", "--out", "run"]
    assert main(["train", "t_jepa", *TINY, *given]) == 0
    monkeypatch.setattr(sys, "argv", ["plot_run.py", "run", "picture.png"])
    runpy.run_path(str(EXAMPLES / "plot_run.py"), run_name="__main__")
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")


def in_a_folder_of_its_own(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an example, and the working directory elsewhere."""
    (folder / "home").mkdir()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    return Path(shutil.copy(EXAMPLES / name, folder / "home" / name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("my_method.py", [s for s in TINY if not s.startswith("predictor.")]),
        ("my_dataset.py", ["waves=300", "train.batch_size=15", "train.accelerator=cpu"]),
    ],
)
def test_a_method_of_ones_own_works_like_a_built_in_one(
    name: str, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """check, train, eval and report, from another folder and after the file is gone."""
    recipe, out = in_a_folder_of_its_own(name, tmp_path, monkeypatch), tmp_path / "run"
    assert main(["check", str(recipe), *settings, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    assert main(["train", str(recipe), *settings, "train.steps=4", "--out", str(out), "--no-eval"]) == 0
    recipe.unlink()
    assert main(["eval", str(out)]) == 0
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").exists()


def test_a_method_of_ones_own_is_short_and_needs_one_import() -> None:
    code = (EXAMPLES / "my_method.py").read_text()
    assert len(code.splitlines()) <= 60
    imported = [line for line in code.splitlines() if line.startswith(("import", "from")) and "openjepa" in line]
    assert imported == ["import openjepa.recipe as oj"]


def test_the_surface_for_authors_is_what_it_says() -> None:
    """A name that is taken away breaks somebody's recipe: change this list on purpose only."""
    assert sorted(recipe_surface.__all__) == recipe_surface.__all__
    assert all(hasattr(recipe_surface, name) for name in recipe_surface.__all__)
    public = {
        name for name, value in vars(recipe_surface).items() if getattr(value, "__module__", "").startswith("openjepa")
    }
    assert public == set(recipe_surface.__all__)
    used = {word for file in EXAMPLES.glob("my_*.py") for word in re.findall(r"oj\.(\w+)", file.read_text())}
    assert used <= set(recipe_surface.__all__)
