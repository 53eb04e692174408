"""The demo's page in a real headless Chromium, with a run of every recipe: load, example, result, error."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import time
import urllib.error
import urllib.request
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
from openjepa.core.errors import UserError
from openjepa.demo.hidden_sentence import HiddenSentence
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
        for log in ("metrics.jsonl", "health.jsonl"):
            first, second = (waiting / log).read_text().splitlines(keepends=True)
            (waiting / log).write_text(first + second[:20])
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
    shown.on("console", lambda said: failed.extend([said.text] if "Content Security Policy" in said.text else []))
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


def file_input(page: Any) -> Any:
    """The file input of the tab that is shown."""
    inputs = page.locator("input[type=file]")
    shown = inputs.evaluate_all("all => all.map(one => one.closest('[role=tabpanel]').checkVisibility())")
    return inputs.nth(shown.index(True))


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
def test_a_run_on_images_answers_an_example_and_an_upload(
    name: str, wide: Any, tmp_path: Path, runs: dict[str, Run]
) -> None:
    wide.get_by_role("tab", name=name, exact=True).click()
    said(wide, ".oj h1", name)
    visible(wide, "button.primary").click()
    said(wide, "[role=alert]", "there is no image yet; upload one, or click an example")
    wide.locator(".oj-gallery button:visible").nth(1).click()
    first = said(wide, ".oj p.big", "random pairs").inner_text()
    assert wide.locator(".oj .small figure:visible").count() == 6, "nearest held-out images"
    wide.locator("button.secondary:visible", has_text="other").click()  # other patches, or other views
    wide.locator(".oj p.big:visible", has_not_text=first).first.wait_for()
    (tmp_path / "text.png").write_text("no image")
    file_input(wide).set_input_files(tmp_path / "text.png")
    said(wide, "[role=alert]", "the file is no image that can be read; give JPEG, PNG")
    file_input(wide).set_input_files(image_file(tmp_path, "photo.png"))
    said(wide, ".oj p.big", "random pairs")
    kept = [file.name for file in (runs[name].path.parent.parent / "uploads").rglob("*")]
    assert kept, "thumbnails to click"
    assert not {"text.png", "photo.png"} & set(kept), "uploads are deleted once they are read"


def test_the_map_has_a_cell_for_each_hidden_patch(wide: Any) -> None:
    wide.get_by_role("tab", name="i_jepa", exact=True).click()
    wide.locator(".oj-gallery button:visible").nth(2).click()
    hidden = said(wide, ".oj figcaption", "patches to be predicted").inner_text()
    cells = wide.locator(".oj svg.picture:visible rect.cell")
    assert cells.count() == int(hidden.split()[1])
    assert cells.first.evaluate("cell => getComputedStyle(cell).fill").startswith("rgb(")
    said(wide, ".oj .ramp", "the mean of random pairs, or below")


def test_a_typed_caption_is_ranked_among_those_of_other_images(wide: Any) -> None:
    wide.get_by_role("tab", name="vl_jepa", exact=True).click()
    wide.locator(".oj-gallery button:visible").nth(0).click()
    said(wide, ".oj table.captions .mark", "right")
    own = wide.get_by_role("textbox", name="Caption").input_value()
    assert own in said(wide, ".oj table.captions tr", "yours").inner_text()
    wide.get_by_role("textbox", name="Caption").fill("<i>a purple elephant</i>")
    wide.get_by_role("button", name="Predict the hidden patches").click()
    said(wide, ".oj table.captions tr", "<i>a purple elephant</i>")
    said(wide, ".oj p", "Your caption has rank")
    assert own in said(wide, ".oj table.captions tr", "right").inner_text()


def test_what_the_page_does_not_take_is_refused_at_once(wide: Any, tmp_path: Path) -> None:
    wide.get_by_role("tab", name="i_jepa", exact=True).click()
    (tmp_path / "notes.txt").write_text("no image")
    file_input(wide).set_input_files(tmp_path / "notes.txt")
    said(wide, ".toast-body", "Invalid file type")
    (tmp_path / "large.png").write_bytes(bytes(11_000_000))
    file_input(wide).set_input_files(tmp_path / "large.png")
    said(wide, ".toast-body", "maximum allowed size of 10")


@pytest.mark.parametrize("path", ["/etc/passwd", "{run}/config.yaml", "pyproject.toml", "http://127.0.0.1/x"])
def test_no_file_of_the_machine_is_served(path: str, several: Served) -> None:
    file = path.format(run=several.runs["i_jepa"].path)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{several.address}/gradio_api/file={file}")
    assert refused.value.code == 403


def test_a_training_is_followed_and_its_panels_come_with_its_first_checkpoint(several: Served, browser: Any) -> None:
    run = several.runs["waiting"]
    with opened(browser, several.address, 1500) as page:
        page.get_by_role("tab", name="waiting", exact=True).click()
        said(page, ".oj p", "No checkpoint yet. When there is one, a reload of this page shows more.")
        said(page, "[role=status]", "Step 1 of 2")
        row = json.loads(run.folder.metrics.read_text().splitlines()[0])
        run.folder.metrics.write_text("".join(json.dumps({**row, "step": step}) + "\n" for step in (1, 2)))
        said(page, "[role=status]", "Step 2 of 2")
        said(page, ".oj .plot", "Loss")
        shutil.copytree(run.path.parents[1] / "later", run.path / "checkpoints")
        page.reload()
        page.get_by_role("tab", name="waiting", exact=True).click()
        visible(page, "tr.tr-body").click()
        visible(page, ".oj table.matrix").wait_for()


def test_every_run_shows_its_training(narrow: Any) -> None:
    narrow.get_by_role("tab", name="Training").click()
    said(narrow, "[role=status]", "training has ended")
    said(narrow, ".oj .verdict", "At step 2")
    assert narrow.locator(".oj .plot:visible").count() > 3


def test_a_clicked_example_is_answered(narrow: Any) -> None:
    narrow.locator("tr.tr-body:visible").nth(1).click()
    visible(narrow, ".oj table.matches").wait_for()
    assert visible(narrow, ".oj .mark").inner_text() == "hidden"
    text = narrow.locator(".oj:visible").all_inner_texts()
    assert any("standard deviation" in part for part in text), "no cosine without those of unrelated sentences"
    assert any("openjepa readout" in part for part in text), "how to get decoded sentences"


def test_another_sentence_can_be_hidden_and_predicted(narrow: Any) -> None:
    narrow.get_by_label("Paragraph").fill("A dog chased the cat. The cat ran up a tree. Nobody could reach it.")
    narrow.get_by_label("3. Nobody could reach it.").check()
    narrow.get_by_role("button", name="Predict the hidden sentence").click()
    row = narrow.locator(".oj table.matches tr:visible", has=narrow.locator(".mark")).first
    row.wait_for()
    assert "Nobody could reach it." in row.inner_text()


def test_what_is_wrong_with_an_input_is_said_on_the_page(narrow: Any) -> None:
    narrow.get_by_role("tab", name="Similar texts").click()
    narrow.get_by_label("Texts, one a line").fill("just one <b>text</b>")
    narrow.get_by_role("button", name="Compare").click()
    said(narrow, "[role=alert]", "give two or more")
    narrow.get_by_label("Texts, one a line").fill("<b>bold</b> ${1 + 1} {{2}}\nanother text")
    narrow.get_by_role("button", name="Compare").click()
    visible(narrow, ".oj table.matrix").wait_for()
    shown = visible(narrow, ".oj .say").inner_text()
    assert shown == "1. <b>bold</b> ${1 + 1} {{2}}", "what was typed in is shown as it is, not run"


def test_a_question_asked_while_the_choices_still_change_is_answered(
    narrow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence that was chosen may be gone with the text before: the new choices come first."""
    split = HiddenSentence.sentences

    def slowly(panel: HiddenSentence, paragraph: str) -> list[str]:
        time.sleep(1)
        return split(panel, paragraph)

    monkeypatch.setattr(HiddenSentence, "sentences", slowly)
    narrow.get_by_label("Paragraph").fill("  ")
    narrow.get_by_role("button", name="Predict the hidden sentence").click()
    said(narrow, "[role=alert]", "the paragraph is empty")


def test_a_client_that_asks_too_much_is_told_when_to_try_again(runs: dict[str, Run], browser: Any) -> None:
    with serving({"i_jepa": runs["i_jepa"]}, 1) as served, opened(browser, served.address, 800) as page:
        page.locator(".oj-gallery button:visible").nth(0).click()
        said(page, ".oj p.big", "random pairs")
        page.get_by_role("button", name="Predict the hidden patches").click()
        said(page, "[role=alert]", "the limit of this page is 1 a minute for each client; try again in")
        file_input(page).set_input_files(image_file(served.runs["i_jepa"].path.parent, "more.png"))
        said(page, ".toast-body", "too many questions")


def test_a_port_in_use_is_one_line(one: Served) -> None:
    from openjepa.demo import page

    port = int(one.address.rpartition(":")[2])
    with pytest.raises(UserError, match=f"cannot serve at 127.0.0.1:{port}"):
        page.serve([one.runs["lang_jepa"]], "127.0.0.1", port)
