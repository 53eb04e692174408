"""The demo's page in a real headless Chromium, with a run of every recipe: load, example, result, error."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import openjepa
from openjepa.api import Run
from openjepa.demo.limits import RateLimit
from tests.tiny import EVERY_RECIPE

CHROMIUM = Path("/usr/bin/chromium")  # Debian's
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
if not (CHROMIUM.exists() or shutil.which("chromium")):
    MISSING.append("chromium")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the page is tested in a browser; missing: {', '.join(MISSING)}")
WAIT_MS = 30_000
STEPS = ("train.steps=2", "train.log_every=1", "train.health_every=2", "train.checkpoint_every=2")
HELD_OUT = "data.eval_fraction=0.2"
IMAGES = ("i_jepa", "vl_jepa", "lejepa", "simclr")
FEW, MANY = 50, 10_000  # questions a minute


@dataclass
class Served:
    """A page that is served, and the runs that it shows."""

    address: str
    limit: RateLimit
    runs: dict[str, Run]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """A two-step run of every recipe, and `waiting`: one that has no checkpoint yet and a torn last log line."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(folder / "cache"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        made = {}
        for name, (module, sizes) in EVERY_RECIPE.items():
            recipe = module.__name__.removeprefix("openjepa.recipes.").replace(".", "/")
            settings = [*sizes, *STEPS, HELD_OUT]
            made[name] = openjepa.train(recipe, out=folder / "runs" / name, overrides=settings, progress=False)
        waiting = folder / "runs" / "waiting"
        shutil.copytree(made["t_jepa"].path, waiting)
        shutil.move(waiting / "checkpoints", folder / "later")
        (waiting / "summary.json").unlink()
        first, second = (waiting / "metrics.jsonl").read_text().splitlines(keepends=True)
        (waiting / "metrics.jsonl").write_text(first + second[:20])
        yield {**made, "waiting": openjepa.load(waiting)}


@contextmanager
def serving(runs: dict[str, Run], per_minute: int) -> Iterator[Served]:
    from openjepa.demo import page

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limit = RateLimit(per_minute)
    served = page.serve(list(runs.values()), "127.0.0.1", port, limit)
    yield Served(f"http://127.0.0.1:{port}", limit, runs)
    served.close(verbose=False)


@pytest.fixture(scope="module")
def several(runs: dict[str, Run]) -> Iterator[Served]:
    """All runs on one page."""
    with serving(runs, MANY) as served:
        yield served


@pytest.fixture(scope="module")
def one(runs: dict[str, Run]) -> Iterator[Served]:
    """A LANG-JEPA run, which shows two panels of its own."""
    with serving({"lang_jepa": runs["lang_jepa"]}, FEW) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        executable = str(CHROMIUM) if CHROMIUM.exists() else shutil.which("chromium")
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(browser: Any, address: str, width: int) -> Iterator[Any]:
    """A fresh page. It may ask nothing of another host, no script may fail, nothing may stick out."""
    shown = browser.new_page(viewport={"width": width, "height": 900})
    shown.set_default_timeout(WAIT_MS)
    asked, failed = [], []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: failed.append(str(error)))
    shown.goto(address)
    shown.get_by_role("tab").first.wait_for()
    yield shown
    assert not failed
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.close()


@pytest.fixture(scope="module")
def wide(several: Served, browser: Any) -> Iterator[Any]:
    with opened(browser, several.address, 1500) as shown:
        yield shown


@pytest.fixture
def narrow(one: Served, browser: Any) -> Iterator[Any]:
    with opened(browser, one.address, 400) as shown:
        yield shown


def visible(page: Any, selector: str) -> Any:
    return page.locator(f"{selector}:visible").first


def said(page: Any, selector: str, words: str) -> Any:
    """The visible element with these words, once it is there."""
    found = page.locator(f"{selector}:visible", has_text=words).first
    found.wait_for()
    return found


def image_file(folder: Path, name: str = "photo.png") -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


@pytest.mark.parametrize("name", [name for name in EVERY_RECIPE if name not in IMAGES])
def test_a_run_on_texts_answers_an_example_and_says_what_is_wrong_with_an_input(name: str, wide: Any) -> None:
    wide.get_by_role("tab", name=name, exact=True).click()
    said(wide, ".oj h1", name)
    visible(wide, "tr.tr-body").click()
    said(wide, ".oj p", "standard deviation")
    visible(wide, ".oj table.matches").wait_for()
    visible(wide, "textarea").fill("  ")
    visible(wide, "button.primary").click()
    said(wide, "[role=alert]", "is empty; type one in, or click an example")


@pytest.mark.parametrize("name", IMAGES)
def test_a_run_on_images_answers_an_example_and_an_upload(name: str, wide: Any, tmp_path: Path) -> None:
    wide.get_by_role("tab", name=name, exact=True).click()
    said(wide, ".oj h1", name)
    visible(wide, "button.primary").click()
    said(wide, "[role=alert]", "there is no image yet; upload one, or click an example")
    wide.locator(".oj-gallery button:visible").nth(1).click()
    said(wide, ".oj p.big", "random pairs")
    first = visible(wide, ".oj p.big").inner_text()
    said(wide, ".oj h3", "Nearest held-out images")
    assert wide.locator(".oj .small figure:visible").count() == 6
    wide.locator("button:visible", has_text="other").first.click()  # patches, or views
    wide.wait_for_function("first => ![...document.querySelectorAll('.oj p.big')].some(e => e.innerText === first)", arg=first)  # fmt: skip  # noqa: E501
    (tmp_path / "text.png").write_text("no image")
    chooser = wide.locator("input[type=file]:not([disabled])")
    number = [chooser.nth(i).evaluate("e => e.closest('[role=tabpanel]').checkVisibility()") for i in range(chooser.count())]  # fmt: skip  # noqa: E501
    upload = chooser.nth(number.index(True))
    upload.set_input_files(tmp_path / "text.png")
    said(wide, "[role=alert]", "the file is no image that can be read; give JPEG, PNG")
    upload.set_input_files(image_file(tmp_path))
    said(wide, ".oj p.big", "random pairs")
