"""The documentation site builds without a warning and without a network, and says what the program says."""

from __future__ import annotations

import functools
import html
import http.server
import importlib.util
import logging
import re
import shlex
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from openjepa.cli import app
from openjepa.core.configure import configure
from openjepa.core.describe import describe
from openjepa.core.locate import built_in_recipes, presets
from tests.docs.pages import DOCS, LANGUAGES, OUTSIDE, ROOT, SITE, fences, shown_files

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

FETCHED = re.compile(
    r'(?:<(?:script|img|iframe|source)\b[^>]*\bsrc|<link\b[^>]*\bhref|url\()\s*=?\s*["\']?(?:https?:)?//'
)
EXECUTED = re.compile(
    r"examples/(?:methods/\w+|my_method)\.py"
)  # by tests/contract: test_method_scripts, test_examples
CHROMIUM = shutil.which("chromium") is not None and importlib.util.find_spec("playwright") is not None
SEEN = ("index.html", "methods/t_jepa.html", "reference/objectives.html", "lab-log/index.html")


class Listener(logging.Handler):
    """What MkDocs and its plugins warn of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def no_network(*_: Any) -> None:
    raise AssertionError("the site asked for something over a network while it was built")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.setattr(socket.socket, "connect", no_network)
        patch.setattr(socket, "getaddrinfo", no_network)
        from mkdocs.commands.build import build
        from mkdocs.config import load_config

        heard = Listener()
        logging.getLogger("mkdocs").addHandler(heard)
        folder = tmp_path_factory.mktemp("site")
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
        assert config.strict
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
        logging.getLogger("mkdocs").removeHandler(heard)
    assert heard.said == []
    return folder


def in_nav(entry: Any) -> Iterator[str]:
    """Pages of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from in_nav(inner)


def test_every_page_is_in_the_navigation_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    pages = list(in_nav(yaml.safe_load(text)["nav"]))
    assert len(pages) == len(set(pages))
    assert sorted(f"docs/{page}" for page in pages) == list(SITE)


def test_every_block_is_executed_or_known_not_to_be() -> None:
    """Languages that tests/docs/pages.py knows; files shown in full have tests of their own."""
    for page in (*OUTSIDE, *SITE):
        assert {language for language, _ in fences(page)} <= set(LANGUAGES), page
        assert [file for file in shown_files(page) if not EXECUTED.fullmatch(file)] == [], page


def test_every_page_is_built(site: Path) -> None:
    built = {file.relative_to(site).as_posix() for file in site.rglob("*.html")}
    assert {str(Path(page).relative_to("docs").with_suffix(".html")) for page in SITE} <= built
    assert (site / "search" / "search_index.json").exists()


def test_no_page_asks_another_host(site: Path) -> None:
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert FETCHED.findall(file.read_text(encoding="utf-8")) == [], file


def test_formulas_are_mathml(site: Path) -> None:
    for file in site.rglob("*.html"):
        assert 'class="arithmatex"' not in file.read_text(encoding="utf-8"), file
    for page in (DOCS / "methods").glob("*.md"):
        blocks = page.read_text().count("\n$$\n") // 2
        built = (site / "methods" / f"{page.stem}.html").read_text(encoding="utf-8")
        assert built.count('<div class="formula">') == blocks > 0


def test_the_reference_has_every_verb_and_every_setting(site: Path) -> None:
    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for verb in typer.main.get_command(app).commands:
        assert f"<code>openjepa {verb}" in text
    for recipe in built_in_recipes():
        name = "baselines" if "/" in recipe else recipe
        text = (site / "reference" / "settings" / f"{name}.html").read_text(encoding="utf-8")
        _, defaults = configure(recipe, None, None, [])
        assert [row.key for row in describe(defaults) if f"<code>{row.key}</code>" not in text] == []
        assert [preset for preset in presets(recipe) if f"Preset <code>{preset}</code>" not in text] == []


def examples_of_the_reference(site: Path) -> list[list[str]]:
    """The words of every example of a verb, behind `openjepa`."""
    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    blocks = re.findall(r'<div class="language-console highlight">(.*?)</div>', text, re.DOTALL)
    lines = html.unescape(re.sub(r"<[^>]+>", "", "\n".join(blocks))).splitlines()
    commands = [part for line in lines for part in re.split(r" && | \| ", line) if part.startswith("openjepa ")]
    return [shlex.split(command)[1:] for command in commands]


def test_examples_of_the_reference_name_real_verbs_options_and_settings(site: Path) -> None:
    """They come from the help of the verbs; each verb is executed on another page, these lines are read only."""
    tree = typer.main.get_command(app).commands
    examples = examples_of_the_reference(site)
    assert {words[0] for words in examples} == set(tree)
    for verb, *words in examples:
        command = tree[verb]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert [word for word in words if word.startswith("--") and "." not in word and word not in options] == [], (
            words
        )
        if words and words[0] in built_in_recipes() and verb not in ("ablate", "compare"):
            configure(words[0], None, None, [word for word in words if re.match(r"[a-z_.]+=", word)])


@pytest.mark.skipif(not CHROMIUM, reason="needs playwright and chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_asks_this_machine_only(site: Path, scheme: Any) -> None:
    """Every request of a few pages in a real browser, and that wide content scrolls within the page."""
    from playwright.sync_api import sync_playwright

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as browsers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name in SEEN:
            page.goto(home + name, wait_until="load")
            assert page.evaluate("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        browser.close()
        server.shutdown()
    assert [url for url in asked if not url.startswith((home, "data:", "blob:"))] == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not print what it serves."""

    def log_message(self, *_: Any) -> None:
        pass
