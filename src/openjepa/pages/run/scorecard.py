"""The scorecard of an evaluation as a table, each gain with its interval drawn; and the sweep of layers as a table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json
from openjepa.evals.scorecard import NETWORKS, Scorecard
from openjepa.evals.sweep import SweepFile
from openjepa.pages.parts.chart import interval
from openjepa.pages.parts.document import heat_cell, left_out, table
from openjepa.pages.run.logs import Logs

COLOURS = {"better": 0, "worse": 5, "unclear": 7, "untested": 7, "control": 7}
NAMES = {"run": "run", "init": "initialisation", "random": "random"}


def scorecards(logs: Logs) -> str:
    """Every evaluation in the run folder. Raises UserError if there is none."""
    parts = [_evaluation(file) for file in logs.folder.evaluations]
    if not parts:
        raise UserError(f"this run is not evaluated; do so with: openjepa eval {logs.folder.path}")
    return "".join(parts)


def _evaluation(file: Path) -> str:
    """A scorecard or a sweep, or why it is left out."""
    try:
        if file.stem == "sweep":
            return _sweep(read_json(file, SweepFile))
        return scorecard_table(Scorecard.read(file), file.stem)
    except UserError as error:
        return left_out(str(error))


def scorecard_table(scorecard: Scorecard, name: str) -> str:
    """The sentence, and one row a measure; the best network of a row in bold."""
    columns = scorecard.columns()
    widest = max((abs(end) for m in scorecard.measures.values() for end in m.interval or ()), default=1.0) or 1.0
    rows = []
    for title, measure in scorecard.measures.items():
        best = max(measure.values[column] for column in NETWORKS)
        gain = measure.run_minus_init
        low, high = measure.interval or (gain, gain)
        cells = [_cell(measure.values.get(column), column in NETWORKS, best) for column in columns]
        bar = interval(gain, low, high, widest, COLOURS[measure.verdict])
        rows.append(
            [
                escape(title.replace("_", " ")),
                *cells,
                "-" if measure.chance is None else f"{measure.chance:.3f}",
                f"{gain:+.3f}",
                "-" if measure.interval is None else f"{low:+.3f} to {high:+.3f}",
                bar,
                f'<span class="{measure.verdict}">{measure.verdict}</span>',
            ]
        )
    head = ["measure", *(escape(NAMES.get(column, column)) for column in columns), "chance", "gain", "95 %", "", ""]
    title = "" if name == "default" else f"<h3>evaluation {escape(name)}</h3>"
    note = (
        '<p class="note">gain = run - initialisation, with its 95 % paired bootstrap interval over test items '
        "(documents, if several items belong to one), drawn relative to 0. Where it contains 0, nothing is claimed. "
        "A control is a reference for other measures: no gain or loss.</p>"
    )
    return f"{title}<p>{_sentence(scorecard)}</p>{table(head, rows, f'scorecard {name}', 'dense')}{note}"


def _sentence(scorecard: Scorecard) -> str:
    sentence = scorecard.sentence()
    return f"<b>{escape(sentence[0].upper() + sentence[1:])}.</b>"


def _cell(value: float | None, network: bool, best: float) -> str:
    if value is None:
        return "-"
    return f"<b>{value:.3f}</b>" if network and value == best else f"{value:.3f}"


def _sweep(found: Mapping[str, Any]) -> str:
    """Validation accuracy of every encoder and layer (rows) and pooling (columns)."""
    points = found["points"]
    poolings = list(dict.fromkeys(point["pooling"] for point in points))
    chosen = tuple(found["chosen"][key] for key in ("encoder", "layer", "pooling"))
    values = {(p["encoder"], p["layer"], p["pooling"]): p["validation"] for p in points}
    low = min(values.values())
    high = max(values.values())
    rows = []
    for encoder, layer in dict.fromkeys((p["encoder"], p["layer"]) for p in points):
        cells = []
        for pooling in poolings:
            value = values.get((encoder, layer, pooling))
            strength = 0.0 if value is None else (value - low) / max(high - low, 1e-9)
            shown = "-" if value is None else f"{value:.3f}" + (" *" if (encoder, layer, pooling) == chosen else "")
            cells.append(heat_cell(shown, strength))
        rows.append([escape(f"{encoder} {layer}".strip()), *cells])
    title = "<h3>mean validation accuracy of latents; * = chosen, and tested once below</h3>"
    test = scorecard_table(Scorecard.from_json(found["test"]), "of the chosen latents, on test")
    return title + table(["encoder, layer", *map(escape, poolings)], rows, "sweep") + test
