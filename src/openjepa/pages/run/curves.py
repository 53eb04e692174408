"""Curves over training, with the limits of the verdict drawn where it has one.

Limits are those of `health.signs`. Some apply only with a fall since step 0 or after a part of the run, see the note
under a chart; the verdict decides, not the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from openjepa.health import signs
from openjepa.pages.parts.axis import Axis, axis
from openjepa.pages.parts.chart import Limit, Line, line_chart
from openjepa.pages.parts.document import details, left_out, number, table
from openjepa.pages.run.logs import Logs, series, spaced

WIDE_RANGE = 30.0  # the largest over the smallest value, from which a loss is drawn on a logarithmic axis
MOST_TERMS = 8
TABLED = ("skill", "rank", "spread", "mean_cosine", "scale", "loss")
MOST_ROWS = 24  # health checks in the table


@dataclass(frozen=True)
class Panel:
    """One chart of health metrics. Limits and range are made from the newest record, which has the rank's cap."""

    title: str
    names: Mapping[str, str]  # metric -> label of its line
    note: str
    bounds: Callable[[Mapping[str, Any]], tuple[float | None, float | None]]
    limits: Callable[[Mapping[str, Any]], list[Limit]]
    log: bool = False
    relative: bool = False  # to step 0


def _rank_limits(last: Mapping[str, Any]) -> list[Limit]:
    cap = last.get("rank_cap", 0)
    if cap < signs.RANK_LEAST_CAP:
        return []
    collapsed = max(signs.RANK_COLLAPSED * cap, signs.RANK_FEWEST_COLLAPSED)
    at_risk = max(signs.RANK_AT_RISK * cap, signs.RANK_FEWEST_AT_RISK)
    return [Limit(collapsed, f"collapsed < {collapsed:.1f}"), Limit(at_risk, f"at risk < {at_risk:.1f}", "at-risk")]


FELL = "Limits apply where the value has also fallen below half of step 0."
PANELS = (
    Panel(
        "Skill: relative to trivial predictions",
        {"skill": "to the best constant", "skill_position": "to the position", "skill_copy": "to a copy"},
        "1 = perfect, 0 = useless. The limit applies after a quarter of the run.",
        lambda last: (-0.2, None),
        lambda last: [Limit(signs.SKILL_FLOOR, f"not learning < {signs.SKILL_FLOOR}", "at-risk")],
    ),
    Panel(
        "Effective rank of the embeddings",
        {"rank": "rank"},
        f"Dimensions in use. {FELL}",
        lambda last: (0.0, last.get("rank_cap")),
        _rank_limits,
    ),
    Panel(
        "Spread: variance / squared length",
        {"spread": "embeddings", "target_spread": "targets"},
        "1 = centered, 0 = all equal; collapsed below the limit.",
        lambda last: (signs.SPREAD_DEAD / 10, 1.3),
        lambda last: [Limit(signs.SPREAD_DEAD, f"collapsed < {signs.SPREAD_DEAD:g}")],
        log=True,
    ),
    Panel(
        "Mean cosine of unrelated inputs",
        {"mean_cosine": "mean cosine"},
        f"Near 1 = all in one narrow cone. {FELL.replace('value', 'distance from 1')}",
        lambda last: (-0.1, 1.0),
        lambda last: [
            Limit(1 - signs.CONE_COLLAPSED, f"collapsed > {1 - signs.CONE_COLLAPSED:g}", below=False),
            Limit(1 - signs.CONE_AT_RISK, f"at risk > {1 - signs.CONE_AT_RISK:g}", "at-risk", below=False),
        ],
    ),
    Panel(
        "Size relative to step 0",
        {"scale": "mean norm", "std": "standard deviation"},
        "Limits apply where both are below them.",
        lambda last: (signs.SCALE_COLLAPSED / 3, 3.0),
        lambda last: [
            Limit(signs.SCALE_COLLAPSED, f"collapsed < {signs.SCALE_COLLAPSED:g}"),
            Limit(signs.SCALE_AT_RISK, f"at risk < {signs.SCALE_AT_RISK:g}", "at-risk"),
        ],
        log=True,
        relative=True,
    ),
    Panel(
        "Explained by position alone",
        {"position_share": "targets", "predicted_position_share": "predictions"},
        f"Limits apply to targets, with skill relative to the position below {signs.POSITION_SKILL:g}.",
        lambda last: (0.0, 1.0),
        lambda last: [
            Limit(signs.POSITION_COLLAPSED, f"collapsed > {signs.POSITION_COLLAPSED:g}", below=False),
            Limit(signs.POSITION_AT_RISK, f"at risk > {signs.POSITION_AT_RISK:g}", "at-risk", below=False),
        ],
    ),
    Panel(
        "Distance of teacher and student",
        {"teacher_distance": "distance"},
        "0 = equal, 1 = unrelated. The limit applies after a quarter of the run.",
        lambda last: (0.0, 1.0),
        lambda last: [Limit(signs.TEACHER_FAR, f"lags > {signs.TEACHER_FAR:g}", "at-risk", below=False)],
    ),
)


def curves(logs: Logs) -> str:
    """All charts that the logs allow, and the health checks as a table."""
    if not logs.metrics and not logs.health:
        return left_out("nothing is logged yet")
    steps = Axis(0, max(1, logs.total_steps, logs.step))
    charts = [_loss(logs, steps), *(_panel(panel, logs.health, steps) for panel in PANELS)]
    charts += [_learning_rate(logs, steps), _terms(logs, steps)]
    drawn = [chart for chart in charts if chart]
    charts = f'<div class="plots">{"".join(drawn)}</div>'
    health = _table(logs.health)
    return charts + details("The same numbers as a table", health) if logs.health else charts


def _loss(logs: Logs, steps: Axis) -> str:
    lines = [
        Line("training", series(logs.metrics, "loss"), 0),
        Line("held out", series(logs.health, "loss"), 1),
    ]
    note = "Its value means little across runs: the targets change. Compare skill."
    return _chart("Loss", lines, steps, note)


def _terms(logs: Logs, steps: Axis) -> str:
    names = [name for name in (logs.metrics[-1] if logs.metrics else {}) if name.startswith("loss_")]
    if len(names) < 2:
        return ""
    lines = [
        Line(name.removeprefix("loss_").replace("_", " "), series(logs.metrics, name), number)
        for number, name in enumerate(names[:MOST_TERMS])
    ]
    return _chart("Terms of the loss, as weighted", lines, steps, "Their sum is the training loss.")


def _learning_rate(logs: Logs, steps: Axis) -> str:
    lines = [Line("learning rate", series(logs.metrics, "lr"), 1)]
    joint = logs.notes.get("predictor_alone_after_step")
    note = "" if joint is None else f"After step {joint}, only the predictor is trained."
    return _chart("Learning rate", lines, steps, note, from_zero=True)


def _chart(title: str, lines: Sequence[Line], steps: Axis, note: str, from_zero: bool = False) -> str:
    """A chart whose range is that of its lines."""
    lines = [line for line in lines if line.points]
    values = [value for line in lines for _, value in line.points]
    if not values:
        return ""
    log = min(values) > 0 and max(values) > WIDE_RANGE * min(values) and not from_zero
    y = axis([*values, 0.0] if from_zero else values, log)
    if from_zero:
        y = Axis(0.0, y.high)
    return line_chart(title, lines, steps, y, note=note + (" Logarithmic axis." if log else ""), x_label="step")


def _panel(panel: Panel, health: Sequence[Mapping[str, Any]], steps: Axis) -> str:
    lines = []
    for count, (name, label) in enumerate(panel.names.items()):
        points = series(health, name)
        if panel.relative:
            start = points[0][1] if points else 0.0
            points = [(step, value / start) for step, value in points] if start > 0 else []
        if points:
            lines.append(Line(label, points, count, thin=count > 0))
    if not lines:
        return ""
    last = health[-1]
    y = _range(panel, last, [value for line in lines for _, value in line.points])
    note = panel.note + (" Logarithmic axis." if panel.log else "")
    return line_chart(panel.title, lines, steps, y, limits=panel.limits(last), note=note, x_label="step")


def _range(panel: Panel, last: Mapping[str, Any], values: Sequence[float]) -> Axis:
    """The panel's range, extended where values exceed it."""
    low, high = panel.bounds(last)
    fitted = axis(values, panel.log)
    if panel.log:
        return Axis(min(low or fitted.low, fitted.low), max(high or fitted.high, fitted.high), True)
    low = fitted.low if low is None else min(low, fitted.low if min(values) < low else low)
    high = fitted.high if high is None else max(high, max(values))
    return Axis(low, max(high, low + 0.1))


def _table(health: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in TABLED if any(name in record for record in health)]
    rows = [
        [str(record["step"]), *(number(record.get(name)) for name in names), escape(record["status"])]
        for record in spaced(health, MOST_ROWS)
    ]
    return table(["step", *(name.replace("_", " ") for name in names), "verdict"], rows, "health checks")
