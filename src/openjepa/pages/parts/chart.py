"""Charts as inline SVG: lines with limits, dots, and the small bar of an interval. Colours come from chart.css.

Each mark carries its value as a <title>, which browsers show on hovering; the pages give the same numbers in tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from openjepa.pages.parts.axis import Axis, axis, tick_text
from openjepa.pages.parts.document import breakable

# of the area that is drawn into
WIDE = 290
HIGH = 150
# margins for labels
LEFT = 40
RIGHT = 6
TOP = 8
BOTTOM = 22
LETTER = 6.2  # units of the drawing that a letter takes, about
LINE = 15  # units that a line of text takes
COLOURS = 8
POINTS = 300  # of a line at most; more are averaged
DOTTED = 24  # points: a line of fewer has a dot at each

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve. `colour` counts the colours of chart.css."""

    label: str
    points: Sequence[Point]
    colour: int = 0
    thin: bool = False


@dataclass(frozen=True)
class Limit:
    """A threshold: `kind` is "collapsed", "at-risk" or "level"; the bad side is below it or above it."""

    y: float
    label: str
    kind: str = "collapsed"
    below: bool = True


@dataclass(frozen=True)
class Dot:
    """One point of a scatter plot; `group` decides colour and shape."""

    x: float
    y: float
    tip: str
    group: int = 0


def line_chart(
    title: str, lines: Sequence[Line], x: Axis, y: Axis, *, limits: Sequence[Limit] = (), note: str = "", x_label: str
) -> str:
    """A figure with its title above, keys and `note` below."""
    drawn = [_zone(limit, y) for limit in limits] + _frame(x, y, x_label)
    drawn += [_curve(line, x, y) for line in lines]
    drawn += [_limit_label(limit, y) for limit in limits]
    keys = [(line.label, _key_line(line)) for line in lines] if len(lines) > 1 else []
    return _figure(title, drawn, keys, note)


def scatter(
    title: str,
    dots: Sequence[Dot],
    x: Axis,
    y: Axis,
    groups: Sequence[str],
    *,
    x_label: str,
    levels: Sequence[Limit] = (),
    note: str = "",
) -> str:
    """Dots in groups, with lines at `levels` (baselines, say)."""
    drawn = _frame(x, y, x_label) + [_zone(level, y) for level in levels]
    drawn += [_mark(dot.group, *_at(dot.x, dot.y, x, y), dot.tip, 4.5) for dot in dots]
    drawn += [_limit_label(level, y) for level in levels]
    return _figure(title, drawn, _group_keys(groups), note)


def cloud(title: str, dots: Sequence[Dot], groups: Sequence[str], note: str = "") -> str:
    """Dots without axes, where only distances have a meaning."""
    x = axis([dot.x for dot in dots], margin=0.03)
    y = axis([dot.y for dot in dots], margin=0.03)
    drawn = [_mark(dot.group, *_at(dot.x, dot.y, x, y), dot.tip, 3.2) for dot in dots]
    return _figure(title, drawn, _group_keys(groups), note)


def interval(value: float, low: float, high: float, widest: float, colour: int) -> str:
    """A small bar of an interval relative to 0, on a scale from -widest to widest."""

    def at(v: float) -> float:
        return 60 + 56 * max(-1.0, min(1.0, v / widest))

    return (
        '<svg class="interval" viewBox="0 0 120 16" aria-hidden="true"><line class="zero" x1="60" x2="60" y1="1" '
        f'y2="15"/><g class="c{colour}"><line class="span" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="8" y2="8"/>'
        f'<circle class="dot" cx="{at(value):.1f}" cy="8" r="4.5"/></g></svg>'
    )


def _figure(title: str, drawn: Sequence[str], keys: Sequence[tuple[str, str]], note: str) -> str:
    box = f'viewBox="0 0 {LEFT + WIDE + RIGHT} {TOP + HIGH + BOTTOM}" role="img" aria-label="{escape(title)}"'
    listed = "".join(f"<span>{mark}{breakable(label)}</span>" for label, mark in keys)
    below = (f'<div class="keys">{listed}</div>' if keys else "") + escape(note)
    return (
        f'<figure class="plot"><b>{escape(title)}</b><svg {box}>{"".join(drawn)}</svg>'
        f"<figcaption>{below}</figcaption></figure>"
    )


def _frame(x: Axis, y: Axis, x_label: str) -> list[str]:
    bottom = TOP + HIGH
    parts = []
    for value in y.ticks():
        at = bottom - HIGH * y.share(value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{LEFT + WIDE}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{tick_text(value)}</text>')
    for value in x.ticks(6):
        share = x.share(value)
        if WIDE * (1 - share) > LETTER * len(x_label) + 16:  # else it would overlap the name of the axis
            at = LEFT + WIDE * share
            parts.append(f'<text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{tick_text(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT + WIDE}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{LEFT + WIDE}" y="{bottom + 15}" text-anchor="end">{escape(x_label)}</text>')
    return parts


def _at(x_value: float, y_value: float, x: Axis, y: Axis) -> tuple[float, float]:
    return LEFT + WIDE * x.share(x_value), _height(y_value, y)


def _height(value: float, y: Axis) -> float:
    return TOP + HIGH * (1 - y.share(value))


def _curve(line: Line, x: Axis, y: Axis) -> str:
    finite = [(a, b) for a, b in line.points if math.isfinite(a) and math.isfinite(b)]
    if not finite:
        return ""
    positions = [_at(a, b, x, y) for a, b in thinned(finite)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in positions)
    marks = [
        f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="2.4"><title>{escape(line.label)} at {tick_text(point[0])}: '
        f"{point[1]:.4g}</title></circle>"
        for (a, b), point in zip(positions, finite, strict=False)
        if len(finite) <= DOTTED
    ]
    thin = " thin" if line.thin else ""
    return f'<g class="c{line.colour % COLOURS}"><polyline class="curve{thin}" points="{path}"/>{"".join(marks)}</g>'


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most `most` points: means of equal stretches of neighbours, and the last point unchanged."""
    if len(points) <= most:
        return list(points)
    cuts = [round(i * (len(points) - 1) / (most - 1)) for i in range(most)]
    stretches = [points[a:b] for a, b in pairwise(cuts)]
    means = [(sum(a for a, _ in part) / len(part), sum(b for _, b in part) / len(part)) for part in stretches]
    return [*means, points[-1]]


def _zone(limit: Limit, y: Axis) -> str:
    at = _height(limit.y, y)
    line = f'<line class="limit {limit.kind}" x1="{LEFT}" x2="{LEFT + WIDE}" y1="{at:.1f}" y2="{at:.1f}"/>'
    if limit.kind != "collapsed":
        return line
    top, bottom = (at, TOP + HIGH) if limit.below else (TOP, at)
    return f'<rect class="zone" x="{LEFT}" y="{top:.1f}" width="{WIDE}" height="{bottom - top:.1f}"/>{line}'


def _limit_label(limit: Limit, y: Axis) -> str:
    """Labels of collapse on the left, of risk on the right, as both are often close; on the bad side where they fit."""
    at = _height(limit.y, y)
    below = at < TOP + HIGH - LINE if limit.below else at < TOP + LINE
    height = at + 12 if below else at - 4
    left, anchor = (LEFT + 4, "start") if limit.kind == "collapsed" else (LEFT + WIDE - 2, "end")
    return f'<text class="on" x="{left}" y="{height:.1f}" text-anchor="{anchor}">{escape(limit.label)}</text>'


def _mark(group: int, x: float, y: float, tip: str, r: float) -> str:
    """A dot of one of eight colours and four shapes, so that groups do not differ only in colour."""
    shape = group % 4
    colour = f"c{group % COLOURS}"
    title = f"<title>{escape(tip)}</title>" if tip else ""
    if shape == 0:
        return f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="{r}">{title}</circle>'
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
        3: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    }[shape]
    size = 0.9 * r
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
    return f'<polygon class="dot {colour}" points="{points}">{title}</polygon>'


def _group_keys(groups: Sequence[str]) -> list[tuple[str, str]]:
    return [
        (name, f'<svg viewBox="0 0 14 14" aria-hidden="true">{_mark(number, 7, 7, "", 5)}</svg>')
        for number, name in enumerate(groups)
    ]


def _key_line(line: Line) -> str:
    curve = f'<line class="curve{" thin" if line.thin else ""}" x1="0" x2="14" y1="7" y2="7"/>'
    return f'<svg viewBox="0 0 14 14" class="c{line.colour % COLOURS}" aria-hidden="true">{curve}</svg>'
