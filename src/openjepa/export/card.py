"""A model card from a run folder: data, objective, health, results beside baselines, cost, limits, how to repeat it.

It begins with the front matter that the Hugging Face hub reads. Nothing is written from memory: every figure comes from
a file of the run, and what a run does not know is said to be missing. Of absolute paths only the last part is shown: a
card is published, and folders of one machine tell others nothing but who trained it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from openjepa.core.config import BaseConfig
from openjepa.core.rundir import RunDir
from openjepa.core.values import as_yaml
from openjepa.evals.scorecard import Scorecard

LIBRARIES = {"sentence-transformers": "sentence-transformers", "transformers": "transformers", "model2vec": "model2vec"}
MOST_ROWS = 24  # of a table of results
ABSOLUTE = re.compile(r"~\w*[\\/]|[\\/]|[A-Za-z]:[\\/]|file:/")  # how an absolute path begins
FOLDERS = re.compile(  # of an absolute path within a list or a text
    r"""(?<![^\[\](){},'"\s])(?:~\w*|[A-Za-z]:|file:/*)?[\\/](?:[^\\/,'"\[\](){}]+[\\/])*(?=[^\\/\s,'"\])}])"""
)


def model_card(
    folder: RunDir, recipe: str, objective: str, config: BaseConfig, to: str, reads_texts: bool, licence: str
) -> str:
    """Return the card of a run for the format `to`, in Markdown.

    `objective` is one sentence on what the recipe does; `licence` is an identifier of the hub's list.
    """
    environment = folder.environment()
    summary = folder.read_summary()
    health = list(folder.health_records())
    adapted = {"Adaptation": _adaptation(found)} if (found := folder.read_adaptation()) else {}
    sections = adapted | {
        "Data": _data(config, summary),
        "Training": _training(recipe, objective, config, summary),
        "Health": _health(health),
        "Results": _results(folder),
        "Intended use and limits": _limits(config, reads_texts),
        "How to repeat it": _repeat(environment, recipe, config),
    }
    parts = [f"## {title}\n\n{text}\n" for title, text in sections.items()]
    kind = "sentence" if reads_texts else "image"
    title = f"# {folder.path.resolve().name}: {kind} embeddings by {recipe}\n"
    return "\n".join([_front_matter(to, reads_texts, licence), title, *parts])


def _front_matter(to: str, reads_texts: bool, licence: str) -> str:
    task = "sentence-similarity" if reads_texts else "image-feature-extraction"
    fields: dict[str, Any] = {"license": licence, "pipeline_tag": task, "tags": ["openjepa", "jepa", "self-supervised"]}
    if to in LIBRARIES:
        fields["library_name"] = LIBRARIES[to]
    if to == "onnx":
        fields["tags"] = [*fields["tags"], "onnx"]
    return f"---\n{as_yaml(fields)}---\n"


def _data(config: BaseConfig, summary: Mapping[str, Any]) -> str:
    data = vars(config).get("data")
    source = without_folders(getattr(data, "source", "unknown"))
    lines = [f"Source: `{source}`."]
    if getattr(data, "synthetic", False):
        lines.append("**This is a synthetic world made by a program, not real data.**")
    for name, value in dict(summary.get("notes", {}).get("data", {})).items():
        lines.append(f"- {name}: {without_folders(value)}")
    return "\n".join(lines)


def _training(recipe: str, objective: str, config: BaseConfig, summary: Mapping[str, Any]) -> str:
    lines = [f"Recipe `{recipe}`, trained without labels. {objective}", ""]
    figures = {
        "steps": summary.get("steps"),
        "time": _seconds(summary.get("train_s")),
        "tokens a second": _rounded(summary.get("tokens_per_s")),
        "loss at the end": _rounded(summary.get("loss"), 3),
        "skill (1 = perfect prediction of latents, 0 = the best constant)": _rounded(summary.get("skill"), 3),
    }
    lines += [f"- {name}: {value}" for name, value in figures.items() if value is not None]
    if not summary:
        lines.append("Training did not end: there is no summary.")
    settings = as_yaml(without_folders(config.model_dump(mode="json"))).rstrip()
    return "\n".join(
        [*lines, "", "<details><summary>All settings</summary>", "", "```yaml", settings, "```", "</details>"]
    )


def _adaptation(found: Mapping[str, Any]) -> str:
    """What `openjepa adapt` kept, why, and what it measured."""
    kept = {
        "start": "the encoder as it was",
        "whitening": "whitening within documents",
        "predictor": "whitening within documents, and a linear predictor of the document for queries",
    }[found["decision"]["kept"]]
    lines = [
        f"From `{without_folders(str(found['base']))}`, frozen, by maps in closed form, without labels. Kept: {kept}.",
        "",
        *(f"- {reason}" for reason in found["decision"]["reasons"]),
        f"- {found['documents']:,} documents, {found['parts']:,} parts; effective rank within documents "
        f"{found['effective_rank']} of {found['dim']}, cohesion {found['cohesion']}",
    ]
    if found.get("guard") is not None:
        lines += [f"- guarded: {line}" for line in found["guard"]["lines"]]
    else:
        lines.append("- no measure judged by people guarded it; ratings of general similarity (STS) may lose a little")
    return "\n".join(lines)


def _health(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return "Not checked."
    newest = records[-1]
    return f"Verdict at step {newest['step']}: **{newest['status']}** ({newest.get('evidence') or 'no evidence kept'})."


def _results(folder: RunDir) -> str:
    """Every kept evaluation, each measure beside the initialisation, a random network and the baselines."""
    files = [file for file in folder.evaluations if file.stem != "sweep"]
    tables = [_table(file.stem, Scorecard.read(file)) for file in files]
    return "\n\n".join(tables) if tables else "Not evaluated: `openjepa eval RUN` compares it with its initialisation."


def _table(name: str, scorecard: Scorecard) -> str:
    columns = scorecard.columns()
    head = ["measure", *columns, "chance", "gain over init", "95 % interval"]
    rows = []
    for measure, found in list(scorecard.measures.items())[:MOST_ROWS]:
        interval = "-" if found.interval is None else "{:+.3f} to {:+.3f}".format(*found.interval)
        values = [_rounded(found.values.get(column), 3) or "-" for column in columns]
        chance = _rounded(found.chance, 3) or "-"
        word = " (control)" if found.control else ""
        rows.append([measure + word, *values, chance, f"{found.run_minus_init:+.3f}", interval])
    lines = [f"`{name}`: {scorecard.sentence()}.", "", _row(head), _row(["---"] * len(head)), *map(_row, rows)]
    left = len(scorecard.measures) - len(rows)
    return "\n".join(lines) + (f"\n\n{left} more measures are in the run." if left else "")


def _limits(config: BaseConfig, reads_texts: bool) -> str:
    what = "texts" if reads_texts else "images"
    lines = [
        f"For similarity, search and clustering of {what} like its training data, and as features for classifiers.",
        "A cosine means little by itself: compare it with that of random pairs of your own data.",
        "It was trained without supervision on the data named above and has their biases.",
    ]
    if getattr(vars(config).get("data"), "synthetic", False):
        lines.append("It knows a synthetic world only: on real data its vectors mean little.")
    return "\n".join(lines)


def _repeat(environment: Mapping[str, Any], recipe: str, config: BaseConfig) -> str:
    command = without_folders_of(environment.get("command") or "")
    settings = config.model_dump(mode="json")
    is_cut = without_folders(settings) != settings
    cut = " Of absolute paths only the last part is shown: put your own there." if is_cut else ""
    versions = environment.get("versions", {})
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "unknown"
    start = f"It was started with\n\n```bash\n{command}\n```\n\n" if command else ""
    return (
        f"{start}The settings above, in a file with the line `recipe: {recipe}`, train it again: "
        f"`openjepa train --config FILE`.{cut} Versions: {shown}."
    )


def without_folders_of(command: str) -> str:
    """The command line that started the run, without the folders of absolute paths."""
    try:
        words = shlex.split(command)
    except ValueError:  # written without quotes by an earlier version
        words = command.split()
    shown = []
    for word in words:
        key, equals, value = word.partition("=")
        is_setting = equals and re.fullmatch(r"[-\w.]+", key)
        shown.append(f"{key}={without_folders(value)}" if is_setting else without_folders(word))
    if shown and shown[0] == "__main__.py":
        shown[0] = "openjepa"
    return shlex.join(shown)


def without_folders(value: Any) -> Any:
    """`value` with each absolute path in it as its last part; settings and lists of them part by part."""
    if isinstance(value, Mapping):
        return {name: without_folders(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(part) for part in value]
    if not isinstance(value, str):
        return value
    if ABSOLUTE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1] or value
    return FOLDERS.sub("", value)


def _row(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _rounded(value: float | None, digits: int = 0) -> str | None:
    return None if value is None else f"{value:,.{digits}f}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value / 60:.1f} minutes"
