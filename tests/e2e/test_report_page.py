"""`openjepa report` and `train --report` as a user meets them, and the page in a real headless Chromium."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openjepa.cli import main
from tests.e2e.test_cli import TINY, answer, corpus
from tests.unit.test_report import FETCHES

MOST_BYTES = 5_000_000
SECTIONS = ["verdict", "curves", "scorecard", "spectrum", "map", "similarity", "neighbours", "masks", "reproduce"]
CHROMIUM = Path("/usr/bin/chromium")  # Debian's
MISSING = [] if importlib.util.find_spec("playwright") else ["playwright"]
if not (CHROMIUM.exists() or shutil.which("chromium")):
    MISSING.append("chromium")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run, evaluated, with its report."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(folder / "cache"))
        words = ["train", "t_jepa", f"data.source={corpus(folder)}", *TINY, "--report", "--out", str(folder / "run")]
        assert main(words) == 0
        yield folder / "run"


def test_training_leaves_a_whole_page(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)"', page) == SECTIONS
    assert "Left out" not in page
    assert "Made during training" not in page
    assert not FETCHES.search(page)
    assert len(page.encode()) < MOST_BYTES
    summary = json.loads((run / "summary.json").read_text())
    assert summary["health"]["evidence"] in page
    assert "topic" in page
    assert page.count("original") + page.count("first half") > 0
    assert "openjepa train --config" in page


def test_the_verb_writes_where_it_is_told_and_changes_nothing_else(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    found = answer(capsys, "report", run, "--out", tmp_path / "new" / "page.html")
    assert found["page"] == str(tmp_path / "new" / "page.html")
    assert found["bytes"] == (tmp_path / "new" / "page.html").stat().st_size
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_what_is_gone_is_left_out_with_the_reason(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints")
    (copy / "evals" / "default.json").unlink()
    (copy / "env.json").unlink()
    assert main(["report", str(copy)]) == 0
    page = (copy / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)"', page) == SECTIONS
    assert page.count("no checkpoint in") == 5
    assert "this run is not evaluated" in page
    assert "env.json is missing" in page


def test_what_is_neither_run_nor_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "neither a run" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if MISSING:
        pytest.skip(f"the page is looked at in a browser; missing: {', '.join(MISSING)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        executable = str(CHROMIUM) if CHROMIUM.exists() else shutil.which("chromium")
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("width", [400, 1120])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_nothing_is_fetched(run: Path, browser: Any, width: int, scheme: str) -> None:
    shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    said: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.goto((run / "report.html").as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert said == [], "nothing of the page is against its own policy"
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 380) == (scheme == "light")
    shown.close()


def test_the_keyboard_reaches_the_links_and_what_is_folded_away(run: Path, browser: Any) -> None:
    shown = browser.new_page()
    shown.goto((run / "report.html").as_uri())
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.className") == "skip"
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.getAttribute('href')") == "#verdict"
    fold = shown.locator("#curves summary")
    fold.focus()
    shown.keyboard.press("Enter")
    assert shown.locator("#curves details table").is_visible()
    shown.close()
