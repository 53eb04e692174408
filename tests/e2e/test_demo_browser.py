"""The demo's page in a real headless Chromium: it loads, an example gives an answer, a wrong input is explained."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import openjepa
from openjepa.core.errors import UserError
from tests.tiny import TINY

CHROMIUM = Path("/usr/bin/chromium")  # Debian's
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
if not (CHROMIUM.exists() or shutil.which("chromium")):
    MISSING.append("chromium")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the page is tested in a browser; missing: {', '.join(MISSING)}")
WAIT_MS = 30_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a two-step LANG-JEPA run, which shows two panels."""
    from openjepa.demo import page

    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(folder / "cache"))
        steps = ["train.steps=2", "train.health_every=2", "train.checkpoint_every=2", "data.eval_fraction=0.2"]
        run = openjepa.train("lang_jepa", out=folder / "run", overrides=[*TINY, *steps], progress=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        served = page.serve(run, "127.0.0.1", port)
        with pytest.raises(UserError, match=f"cannot serve at 127.0.0.1:{port}"):
            page.serve(run, "127.0.0.1", port)
        yield f"http://127.0.0.1:{port}"
        served.close(verbose=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        executable = str(CHROMIUM) if CHROMIUM.exists() else shutil.which("chromium")
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(address: str, browser: Any) -> Iterator[Any]:
    """A fresh page, 400 pixels wide. It may ask nothing of another host, no script may fail, nothing may stick out."""
    shown = browser.new_page(viewport={"width": 400, "height": 900})
    shown.set_default_timeout(WAIT_MS)
    asked, failed = [], []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: failed.append(str(error)))
    shown.goto(address)
    shown.get_by_role("tab", name="Hidden sentence").wait_for()
    yield shown
    assert not failed
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= 400
    shown.close()


def visible(page: Any, selector: str) -> Any:
    return page.locator(f"{selector}:visible").first


def test_a_clicked_example_is_answered(page: Any) -> None:
    page.locator("tr.tr-body:visible").nth(1).click()
    answer = visible(page, ".oj table.matches")
    answer.wait_for()
    marked = visible(page, ".oj .mark")
    assert marked.inner_text() == "hidden"
    text = page.locator(".oj:visible").all_inner_texts()
    assert any("standard deviation" in part for part in text), "no cosine without those of unrelated sentences"
    assert any("openjepa readout" in part for part in text), "how to get decoded sentences"


def test_another_sentence_can_be_hidden_and_predicted(page: Any) -> None:
    page.get_by_label("Paragraph").fill("A dog chased the cat. The cat ran up a tree. Nobody could reach it.")
    page.get_by_label("3. Nobody could reach it.").check()
    page.get_by_role("button", name="Predict the hidden sentence").click()
    row = page.locator(".oj table.matches tr:visible", has=page.locator(".mark")).first
    row.wait_for()
    assert "Nobody could reach it." in row.inner_text()


def test_what_is_wrong_with_an_input_is_said_on_the_page(page: Any) -> None:
    page.get_by_role("tab", name="Similar texts").click()
    page.get_by_label("Texts, one a line").fill("just one <b>text</b>")
    page.get_by_role("button", name="Compare").click()
    alert = page.get_by_role("alert").first
    alert.wait_for()
    assert "give two or more" in alert.inner_text()
    page.get_by_label("Texts, one a line").fill("<b>bold</b> ${1 + 1} {{2}}\nanother text")
    page.get_by_role("button", name="Compare").click()
    matrix = visible(page, ".oj table.matrix")
    matrix.wait_for()
    said = visible(page, ".oj .say").inner_text()
    assert said == "1. <b>bold</b> ${1 + 1} {{2}}", "what was typed in is shown as it is, not run"
