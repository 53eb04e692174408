"""A study as one figure: a panel per headline, a row per arm, a dot per seed; comparisons also show quality by cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.studies.results import SKILL
from openjepa.studies.table import COSTS, free_cost

MOST_PANELS = 4
# dark enough on white, and different in lightness
FIRST = "#0b6e4f"
OTHER = "#2f4b7c"
PALE = "#8d99ae"


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write the PNG. Arms without a finished cell keep an empty row."""
    from matplotlib.figure import Figure  # 0.5 s, and no window system is needed

    names = found["headlines"][:MOST_PANELS]
    costs = found["kind"] == "compare"
    arms = found["arms"]
    labels = _labels(arms)
    width = 3.1 * (len(names) + costs) + 0.09 * max(len(line) for label in labels for line in label.split("\n"))
    lines = sum(max(1.0, 0.6 * (1 + label.count("\n"))) for label in labels)
    figure = Figure(figsize=(width, 1.7 + 0.42 * (lines + 1)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(names) + costs))
    for number, (axes, name) in enumerate(zip(panels, names, strict=False)):
        _panel(axes, found, name)
        if number:
            axes.set_yticklabels([])
    if costs:
        _cost(panels[-1], found, names[-1])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(_title(found))
    figure.savefig(path, dpi=130)


def _panel(axes: Any, found: Mapping[str, Any], name: str) -> None:
    arms = found["arms"]
    for row, arm in enumerate(arms):
        values = _by_seed(arm, name)
        if values:
            colour = OTHER if row else FIRST
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.45, markersize=5, markeredgewidth=0)
            axes.plot([np.mean(values)] * 2, [row - 0.28, row + 0.28], color=colour, linewidth=2.6)
    own = _by_seed(arms[0], name)
    if own:
        axes.axvline(np.mean(own), color=FIRST, linewidth=0.9, linestyle=":")
    for label, values in found["baselines"].items():
        if name in values:
            axes.axvline(values[name], color=PALE, linewidth=1.2, linestyle="--", label=label)
            axes.legend(loc="best", frameon=False, fontsize="small")
    axes.set(title=name, ylim=(len(arms) - 0.5, -0.5), yticks=range(len(arms)))
    axes.set_yticklabels(_labels(arms))


def _cost(axes: Any, found: Mapping[str, Any], name: str) -> None:
    """Draw quality against the cost that the budget does not fix."""
    key = free_cost(found) or "train_s"
    for row, arm in enumerate(found["arms"]):
        values = _by_seed(arm, name)
        if values and arm[key]:
            axes.plot(arm[key], np.mean(values), "o", color=OTHER if row else FIRST)
            offset = (5, -10 if row % 2 else 3)  # so that labels of arms with equal cost do not overlap
            axes.annotate(str(row + 1), (arm[key], np.mean(values)), offset, textcoords="offset points", fontsize=9)
    axes.margins(0.2)
    axes.set(title=f"{name} against cost", xlabel=COSTS[key])


def _labels(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels of arms, numbered for the panel of costs, with each setting on a separate line."""
    return [f"{arm['label']}  ({number})".replace("+", "\n+") for number, arm in enumerate(arms, start=1)]


def _by_seed(arm: Mapping[str, Any], name: str) -> list[float]:
    values = arm["skill_by_seed"].values() if name == SKILL else arm["measures"].get(name, {}).get("by_seed", [])
    return [value for value in values if value is not None]


def _title(found: Mapping[str, Any]) -> str:
    seeds = len(found["seeds"])
    what = found["recipe"] if found["kind"] == "ablate" else f"at equal {found['budget']['unit']}"
    return f"{found['kind']}: {what}, {seeds} {'seed' if seeds == 1 else 'seeds'} (dots), means (bars)"
