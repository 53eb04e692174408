"""The page of a study: measures of each arm, differences with intervals, quality against cost, curves of skill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json
from openjepa.core.rundir import RunDir
from openjepa.core.values import as_yaml
from openjepa.pages.parts.axis import Axis, axis
from openjepa.pages.parts.chart import Dot, Limit, Line, interval, line_chart, scatter
from openjepa.pages.parts.document import breakable, details, number, table
from openjepa.pages.run.logs import series
from openjepa.pages.run.page import Section, assemble, commands, fact_list, versions
from openjepa.pages.run.scorecard import COLOURS
from openjepa.studies.cells import cell_folder
from openjepa.studies.results import RESULTS, SKILL
from openjepa.studies.schema import StudyFile
from openjepa.studies.table import (
    COSTS,
    amount,
    caption,
    free_cost,
    headline_differences,
    mean,
    measure_names,
    of_base,
    verdicts,
)
from openjepa.studies.table import verdict as word_of

COST_PLOTS = 4  # headlines that are drawn against cost


def study_page(folder: Path) -> str:
    """The whole page of a finished study. Raises UserError if its results are damaged."""
    found = read_json(folder / RESULTS, StudyFile)
    sections: list[Section] = [
        ("reached", "What each arm reached", lambda: overview(found)),
        ("differences", f"Differences to {found['base']}", lambda: differences(found)),
        ("cost", "Quality against cost", lambda: against_cost(found)),
        ("skill", "Skill while training", lambda: skill_curves(found, folder)),
        ("measures", "Every measure", lambda: every_measure(found)),
        ("reproduce", "Environment and how to repeat it", lambda: _reproduce(found, folder)),
    ]
    return assemble(f"OpenJEPA: {folder.resolve().name}", _header(found, folder), sections)


def _header(found: Mapping[str, Any], folder: Path) -> str:
    seeds = len(found["seeds"])
    arms = len(found["arms"])
    facts = [
        ("kind", {"ablate": "ablation: settings of one recipe", "compare": "comparison of methods"}[found["kind"]]),
        ("arms", str(arms)),
        ("seeds of each", str(seeds)),
        ("compared with", found["base"]),
    ]
    if budget := found.get("budget"):
        facts.append(("budget of each", f"{amount(budget['amount'])} {budget['unit']}"))
    return f"<h1>{escape(folder.resolve().name)}</h1>{fact_list(facts)}"


def overview(found: Mapping[str, Any]) -> str:
    """One row an arm: verdict, headlines and cost; then initialisation, baselines without learning, and chance."""
    headlines = found["headlines"]
    best = {
        name: max((v for arm in found["arms"] if (v := mean(arm, name)) is not None), default=None)
        for name in headlines
    }
    rows = []
    for arm in found["arms"]:
        cells = [_bold_if_best(mean(arm, name), best[name]) for name in headlines]
        time = "-" if arm["train_s"] is None else f"{arm['train_s']:.0f} s"
        rows.append(
            [breakable(arm["label"]), escape(arm["verdict"]), *cells, time, amount(arm["tokens"]), amount(arm["flops"])]
        )
    none = ["", "", ""]
    untrained = [number(of_base(found, name, "init")) for name in headlines]
    rows.append([f"{breakable(found['base'])}, untrained", "", *untrained, *none])
    for label, values in found["baselines"].items():
        rows.append([escape(label), "", *(number(values.get(name)) for name in headlines), *none])
    rows.append(["chance", "", *(number(of_base(found, name, "chance")) for name in headlines), *none])
    head = ["arm", "verdict", *map(escape, headlines), "train", "tokens", "FLOPs"]
    note = (
        '<p class="note">Means over seeds, the best arm in bold (whether it is better is in the differences). train '
        f"is the wall time of training only, {found['jobs']} at a time.</p>"
    )
    return table(head, rows, "what each arm reached", "dense second-left") + note


def differences(found: Mapping[str, Any]) -> str:
    """One row an arm and headline, with its interval drawn, and a sentence above."""
    rows = headline_differences(found)
    if not rows:
        raise UserError("no arm shares a finished seed with the first one")
    widest = max((abs(end) for row in rows for end in (row["interval"] or (row["value"],))), default=1.0) or 1.0
    cells = []
    last = None
    for row in rows:
        word = word_of(row)
        low, high = row["interval"] or (row["value"], row["value"])
        shown = f"{low:+.3f} to {high:+.3f}" if row["interval"] else "-"
        cells.append(
            [
                "" if row["arm"] == last else breakable(row["arm"]),
                escape(row["measure"]),
                f"{row['value']:+.3f}",
                shown,
                interval(row["value"], low, high, widest, COLOURS[word]),
                f"{row['agreeing']} of {row['seeds']}",
                _p(row["p_items_holm"]),
                _p(row["p_seeds_holm"]),
                f'<span class="{word}">{word}</span>',
            ]
        )
        last = row["arm"]
    head = ["arm", "measure", "difference", "95 %", "", "seeds", "p items", "p seeds", ""]
    note = f'<p class="note">{escape(caption(found))}</p>'
    return f"<p><b>{_sentence(found, rows)}</b></p>{table(head, cells, 'differences', 'dense second-left')}{note}"


def _sentence(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for arm in found["arms"][1:]:
        words = [word_of(row) for row in rows if row["arm"] == arm["label"]]
        if not words:
            parts.append(f"{escape(arm['label'])} has no finished cell to compare")
            continue
        counts = [f"{word} on {words.count(word)}" for word in ("better", "worse", "unclear") if word in words]
        parts.append(f"{escape(arm['label'])} is {', '.join(counts)} of {len(words)} headlines")
    return f"Compared with {escape(found['base'])}: {'; '.join(parts)}."


def against_cost(found: Mapping[str, Any]) -> str:
    """A dot an arm: mean over seeds of a headline, against the cost that the budget does not fix."""
    cost = free_cost(found)
    if cost is None:
        raise UserError("the costs of the arms are not known")
    names = sorted(found["headlines"], key=lambda name: name == SKILL)[:COST_PLOTS]  # skill is relative to own targets
    plots = [_cost_plot(found, name, cost) for name in names]
    return f'<div class="plots two">{"".join(plots)}</div>'


def _cost_plot(found: Mapping[str, Any], name: str, cost: str) -> str:
    dots = [
        Dot(arm[cost], value, f"{arm['label']}: {value:.3f} at {amount(arm[cost])}", i)
        for i, arm in enumerate(found["arms"])
        if arm[cost] and (value := mean(arm, name)) is not None
    ]
    chance = of_base(found, name, "chance")
    levels = [Limit(values[name], title, "level") for title, values in found["baselines"].items() if name in values]
    if chance is not None:
        levels.append(Limit(chance, "chance", "level"))
    x = axis([dot.x for dot in dots], log=True, margin=0.15)
    y = axis([*(dot.y for dot in dots), *(level.y for level in levels)], margin=0.1)
    note = "Mean over seeds. Logarithmic cost." + (
        " Arms differ in their targets, so compare probes." if name == SKILL else ""
    )
    groups = [arm["label"] for arm in found["arms"]]
    return scatter(name, dots, x, y, groups, x_label=COSTS[cost], levels=levels, note=note)


def skill_curves(found: Mapping[str, Any], folder: Path) -> str:
    """Skill over the steps of each arm, mean over its seeds."""
    lines = []
    for i, arm in enumerate(found["arms"]):
        by_step: dict[float, list[float]] = {}
        for seed in found["seeds"]:
            cell = RunDir(cell_folder(folder, arm["label"], seed))
            for step, value in series(list(cell.health_records()), SKILL):
                by_step.setdefault(step, []).append(value)
        if by_step:
            lines.append(Line(arm["label"], [(step, fmean(values)) for step, values in sorted(by_step.items())], i))
    if not lines:
        raise UserError("the cells of this study are not in its folder any more")
    values = [value for line in lines for step, value in line.points if step > 0] or [0.0]
    steps = Axis(0, max(1.0, *(step for line in lines for step, _ in line.points)))
    low = min(0.0, *values)
    high = max(0.05, *values)
    y = Axis(low - 0.05 * (high - low), high + 0.05 * (high - low))
    note = "Mean over seeds; step 0 may lie below the chart. Each arm's skill is relative to its own targets."
    return f'<div class="plots two">{line_chart("Skill", lines, steps, y, note=note, x_label="step")}</div>'


def every_measure(found: Mapping[str, Any]) -> str:
    """One row a measure, one column an arm, folded away."""
    names = measure_names(found)
    words = verdicts(found)
    rows = []
    for name in names:
        cells = []
        for arm in found["arms"]:
            word = words.get((arm["label"], name), "unclear")
            cells.append(
                number(mean(arm, name)) + (f' <span class="{word}">{word}</span>' if word != "unclear" else "")
            )
        others = [number(values.get(name)) for values in found["baselines"].values()]
        rows.append([escape(name.replace("_", " ")), *cells, *others, number(of_base(found, name, "chance"))])
    head = ["measure", *(breakable(arm["label"]) for arm in found["arms"]), *map(escape, found["baselines"]), "chance"]
    return details(f"{len(names)} measures, means over seeds", table(head, rows, "every measure", "dense"))


def _reproduce(found: Mapping[str, Any], folder: Path) -> str:
    about = {key: value for key, value in found.items() if key not in ("arms", "differences", "baselines", "headlines")}
    environment = RunDir(cell_folder(folder, found["base"], found["seeds"][0])).environment()
    settings = details("The study", f"<pre>{escape(as_yaml(about))}</pre>")
    return commands(environment) + versions(environment) + settings


def _bold_if_best(value: float | None, best: float | None) -> str:
    return f"<b>{number(value)}</b>" if value is not None and value == best else number(value)


def _p(value: float | None) -> str:
    return "-" if value is None else "&lt; 0.001" if value < 1e-3 else f"{value:.3f}"
