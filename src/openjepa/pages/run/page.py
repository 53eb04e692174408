"""The page of one run. Sections are made separately; what a run does not have is left out with the reason."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from openjepa import api
from openjepa.core.errors import UserError
from openjepa.core.locate import built_in_recipes, recipe_summary
from openjepa.core.trust import UntrustedCode
from openjepa.core.values import as_yaml
from openjepa.pages.masks import html as mask_html
from openjepa.pages.masks import sampling
from openjepa.pages.parts.document import base_styles, details, document, left_out, style_sheet, table
from openjepa.pages.run import similarity, space
from openjepa.pages.run.adaptation import adaptation
from openjepa.pages.run.curves import curves
from openjepa.pages.run.logs import Logs, read_logs
from openjepa.pages.run.samples import Samples, held_out_samples
from openjepa.pages.run.scorecard import scorecards
from openjepa.pages.run.verdict import verdict
from openjepa.training import checkpoint

Section = tuple[str, str, Callable[[], str]]  # id, title, function that makes it

MASKED_ROWS = 64
MASKED_SHOWN = 3
LIVE_REFRESH_S = 15


def run_page(path: Path, device: str = "auto", precision: str = "auto") -> str:
    """The whole page of a run folder; its networks run as `api.load` says. Raises UserError if it is none."""
    logs = read_logs(path)
    try:
        run = api.load(path, device, precision)
    except UntrustedCode as error:
        return _page_of_logs(logs, str(error))
    samples = once(lambda: held_out_samples(run))
    sections: list[Section] = [
        *_of_training(logs, run),
        ("spectrum", "Spectrum", lambda: _sampled(samples, space.spectrum)),
        ("map", "Map of the embeddings", lambda: _sampled(samples, space.maps)),
        ("similarity", "Similarity", lambda: _similarity(logs, samples)),
        ("neighbours", "Nearest neighbours", lambda: similarity.neighbours(samples())),
        *([] if logs.folder.adaptation.exists() else [("masks", "Masks", lambda: _masks(run))]),
        ("reproduce", "Environment and how to repeat it", lambda: reproduce(logs)),
    ]
    return assemble(f"OpenJEPA: {logs.name}", header(logs), sections)


def _page_of_logs(logs: Logs, reason: str) -> str:
    """The page of a run whose own code is not trusted: what its files say, and why there is no more."""
    sections = [
        *_from_logs(logs, None),
        ("reproduce", "Environment and how to repeat it", lambda: reproduce(logs)),
    ]
    note = f'<p class="note">Only what its files say: {escape(reason)}</p>'
    return assemble(f"OpenJEPA: {logs.name}", header(logs) + note, sections)


def live_page(path: Path) -> str:
    """The page of a run in training, only from its logs; a browser reloads it by itself."""
    logs = read_logs(path)
    sections = [
        *_from_logs(logs, api.load(path, "cpu")),
        ("reproduce", "Environment and how to repeat it", lambda: reproduce(logs)),
    ]
    note = (
        f'<p class="note">Made during training, at step {logs.step} of {logs.total_steps}; it reloads every '
        f"{LIVE_REFRESH_S} s. Embeddings, similarity and masks follow at the end.</p>"
    )
    return assemble(f"OpenJEPA: {logs.name}", header(logs) + note, sections, LIVE_REFRESH_S)


def _of_training(logs: Logs, run: api.Run) -> list[Section]:
    """What its logs say; of an adapted encoder, which was not trained, what was measured."""
    if not logs.folder.adaptation.exists():
        return _from_logs(logs, run)
    return [
        ("adaptation", "Adaptation", lambda: adaptation(run.adaptation())),
        ("scorecard", "Did adaptation help?", lambda: scorecards(logs)),
    ]


def _from_logs(logs: Logs, run: api.Run | None) -> list[Section]:
    return [
        ("verdict", "Verdict", lambda: verdict(logs, run.suggested_overrides() if run else ())),
        ("curves", "Curves", lambda: curves(logs)),
        ("scorecard", "Did training help?", lambda: scorecards(logs)),
    ]


def assemble(title: str, head: str, sections: Sequence[Section], refresh_s: int | None = None) -> str:
    """A page of a header, links to its sections, and the sections. A UserError in one is the reason it is left out."""
    links = "".join(f'<a href="#{name}">{escape(heading)}</a>' for name, heading, _ in sections)
    parts = [
        '<a class="skip" href="#content">Skip to the content</a>',
        f"<header>{head}</header>",
        f'<nav aria-label="Sections">{links}</nav>',
        '<main id="content">',
        *(_section(*section) for section in sections),
        "</main>",
    ]
    styles = [*base_styles(), mask_html.style(), style_sheet("openjepa.pages.run", "report.css")]
    return document(title, parts, styles, refresh_s)


def _section(name: str, heading: str, make: Callable[[], str]) -> str:
    try:
        inside = make()
    except (UserError, OSError) as error:  # the data may have gone since
        inside = left_out(str(error))
    title = f'<h2 id="{name}-title">{escape(heading)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{title}{inside}</section>'


def header(logs: Logs) -> str:
    """Name, recipe, data and the time of training."""
    summary = logs.summary
    data = logs.config.get("data", {})
    source = data.get("source") if isinstance(data, dict) else data
    facts = [
        ("recipe", _recipe(logs.recipe)),
        ("data", _source(source)),
        ("steps", f"{logs.step:,} of {logs.total_steps:,}"),
        ("seed", str(logs.train.get("seed", "-"))),
    ]
    if (seconds := summary.get("train_s")) is not None:
        facts.append(("training", f"{_clock(seconds)}, {summary.get('tokens_per_s') or 0:,.0f} tokens/s"))
    if (loss := summary.get("loss")) is not None:
        facts.append(("loss at the end", f"{loss:.4f}"))
    facts.append(("started", str(logs.environment.get("started", "-"))[:19].replace("T", " ")))
    made = time.strftime("%Y-%m-%d %H:%M")
    is_adapted = logs.folder.adaptation.exists()
    what = "An adapted encoder" if is_adapted else "A training run"
    state = "" if logs.finished or is_adapted else " This run has not ended (or was interrupted)."
    return f'<h1>{escape(logs.name)}</h1><p class="note">{what}, as of {made}.{state}</p>{fact_list(facts)}'


def fact_list(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values below the title of a page."""
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{listed}</dl>'


def _recipe(name: str) -> str:
    about = f": {recipe_summary(name)}" if name in built_in_recipes() else ""
    return f"{name}{about}"


def _source(source: Any) -> str:
    synthetic = " (synthetic, made from known factors)" if source in ("stories", "scenes", "arithmetic") else ""
    return f"{source}{synthetic}"


def once(make: Callable[[], Samples]) -> Callable[[], Samples]:
    """Cache the result of `make`, or its UserError, so that no section repeats it."""
    made: list[Samples | UserError] = []

    def cached() -> Samples:
        if not made:
            try:
                made.append(make())
            except UserError as error:
                made.append(error)
        if isinstance(made[0], UserError):
            raise made[0]
        return made[0]

    return cached


def _sampled(samples: Callable[[], Samples], draw: Callable[[Samples], str]) -> str:
    found = samples()
    return f'<p class="note">Of {escape(found.origin)}.</p>{draw(found)}'


def _similarity(logs: Logs, samples: Callable[[], Samples]) -> str:
    checked = logs.summary.get("semantic")
    return (similarity.semantic_check(checked) if checked else "") + similarity.matrix(samples())


def _masks(run: api.Run) -> str:
    checkpoint.newest(
        run.folder.checkpoints
    )  # raises first, as reading the data of a run that never began may take minutes
    sampled = sampling.sample(run.fresh(random_init=True), MASKED_SHOWN, MASKED_ROWS)
    more = f'<p class="note">All figures: <code>openjepa masks {escape(str(run.path))}</code></p>'
    return mask_html.settings(run.config) + mask_html.samples(sampled) + more


def reproduce(logs: Logs) -> str:
    """Commands, versions and the whole configuration."""
    again = f"openjepa train --config {shlex.quote(str(logs.folder.config_file))} --out NEW"
    config = as_yaml({"recipe": logs.recipe, **logs.config})
    counted = details("Counts and notes", f"<pre>{escape(as_yaml(logs.notes))}</pre>") if logs.notes else ""
    return (
        f"{commands(logs.environment)}<p>The same configuration and seed again:</p><pre>{escape(again)}</pre>"
        f"{versions(logs.environment)}{counted}{details('The whole configuration', f'<pre>{escape(config)}</pre>')}"
    )


def commands(environment: Mapping[str, Any]) -> str:
    """The command that started the run, if known."""
    if not environment.get("command"):
        return ""
    return f"<p>It was started with</p><pre>{escape(_command(environment))}</pre>"


def versions(environment: Mapping[str, Any]) -> str:
    """Packages and machine."""
    rows = [[escape(name), escape(str(version))] for name, version in environment.get("versions", {}).items()]
    rows += [[name, escape(str(environment[name]))] for name in ("python", "platform", "cpus") if name in environment]
    return table(["", "version"], rows, "environment", "dense left") if rows else left_out("env.json is missing")


def _command(environment: Mapping[str, Any]) -> str:
    """The command line with the program's name instead of its path."""
    program, space_between, rest = environment["command"].partition(" ")
    name = Path(program).name
    return f"{'openjepa' if name == '__main__.py' else name}{space_between}{rest}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes} min {second} s" if minutes else f"{second} s"
