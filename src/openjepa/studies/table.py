"""A study in the terminal: measures and cost of each arm, its differences to the first arm, and every measure.

Made only from results.json, so that a finished study can be shown again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openjepa.core.tables import folding_table
from openjepa.studies.results import SKILL

if TYPE_CHECKING:
    from rich.table import Table

LEVEL = 0.05  # of a corrected p-value: below it the verdict is "better" or "worse"
UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Overview, differences of the headlines, and all measures where there are more than the headlines."""
    shown = [overview(found), differences(found)]
    names = measure_names(found)
    return [*shown, every_measure(found, names)] if len(names) > len(found["headlines"]) else shown


def overview(found: Mapping[str, Any]) -> Table:
    """One row an arm: verdict, headlines (mean over seeds) and cost; then the start and baselines without learning."""
    at_a_time = f", up to {found['jobs']} cells at a time" if found["jobs"] > 1 else ""
    note = f"mean over seeds; skill is relative to an arm's own targets; train: wall time of training alone{at_a_time}"
    headlines = found["headlines"]
    columns = (*headlines, "train", "tokens", "FLOPs")
    table = folding_table(["arm", "verdict"], columns, title="What each arm reached", caption=note)
    for arm in found["arms"]:
        values = [mean(arm, name) for name in headlines]
        cost = (_seconds(arm["train_s"]), amount(arm["tokens"]), amount(arm["flops"]))
        table.add_row(_escaped(arm["label"]), _escaped(arm["verdict"]), *map(_number, values), *cost)
    starts = [of_base(found, name, "init") for name in headlines]
    table.add_row(f"{_escaped(found['base'])}, untrained", "", *map(_number, starts), "", "", "", style="dim")
    for name, values in found["baselines"].items():
        table.add_row(
            _escaped(name), "", *(_number(values.get(headline)) for headline in headlines), "", "", "", style="dim"
        )
    chances = [of_base(found, name, "chance") for name in headlines]
    table.add_row("chance", "", *map(_number, chances), "", "", "", style="dim")
    return table


def differences(found: Mapping[str, Any]) -> Table:
    """One row an arm and headline."""
    columns = ("difference", "95 %", "seeds", "p items", "p seeds")
    title = f"Differences to {found['base']}"
    table = folding_table(["arm", "measure"], columns, [""], title=title, caption=caption(found))
    last = None
    for row in headline_differences(found):
        interval = row["interval"]
        shown = "-" if interval is None else f"{interval[0]:+.3f} {interval[1]:+.3f}"
        word = verdict(row)
        colour = {"better": "green", "worse": "red"}.get(word, "default")
        table.add_row(
            "" if row["arm"] == last else _escaped(row["arm"]),
            _escaped(row["measure"]),
            f"[{colour}]{row['value']:+.3f}[/]",
            shown,
            f"{row['agreeing']}/{row['seeds']}",
            _p(row["p_items_holm"]),
            _p(row["p_seeds_holm"]),
            f"[{colour}]{word}[/]",
        )
        last = row["arm"]
    return table


def every_measure(found: Mapping[str, Any], names: Sequence[str]) -> Table:
    """One row a measure, one column an arm."""
    note = "mean over seeds; * = better or worse than the first arm, as above"
    arms = found["arms"]
    columns = [*(_escaped(arm["label"]) for arm in arms), *found["baselines"], "chance"]
    table = folding_table(["measure"], columns, title="Every measure", caption=note)
    words = verdicts(found)
    for name in names:
        stars = ["*" if words.get((arm["label"], name)) in ("better", "worse") else "" for arm in arms]
        cells = [_number(mean(arm, name)) + star for arm, star in zip(arms, stars, strict=True)]
        others = [_number(values.get(name)) for values in found["baselines"].values()]
        shown = f"{name} (control)" if name in found.get("controls", ()) else name
        table.add_row(_escaped(shown), *cells, *others, _number(of_base(found, name, "chance")))
    return table


def measure_names(found: Mapping[str, Any]) -> list[str]:
    """All measures that any arm has."""
    return list(dict.fromkeys(name for arm in found["arms"] for name in arm["measures"]))


def mean(arm: Mapping[str, Any], name: str) -> float | None:
    """An arm's value of a measure or of skill, mean over its seeds."""
    return arm[SKILL] if name == SKILL else arm["measures"].get(name, {}).get("mean")


def of_base(found: Mapping[str, Any], name: str, what: str) -> float | None:
    """ "init" or "chance" of a measure, from the first arm; skill has neither."""
    return found["arms"][0]["measures"].get(name, {}).get(what)


def headline_differences(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Differences of the headlines, by arm and headline in the order of the study."""
    order = {arm["label"]: number for number, arm in enumerate(found["arms"])}
    rows = [row for row in found["differences"] if row["headline"]]
    return sorted(rows, key=lambda row: (order[row["arm"]], found["headlines"].index(row["measure"])))


def verdicts(found: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(arm, measure) -> its verdict."""
    return {(row["arm"], row["measure"]): verdict(row) for row in found["differences"]}


COSTS = {"flops": "FLOPs of training", "train_s": "seconds of training", "tokens": "tokens of training"}
GIVEN = {"flops": "flops", "minutes": "train_s", "tokens": "tokens"}  # the cost that each unit of a budget makes equal


def free_cost(found: Mapping[str, Any]) -> str | None:
    """The cost, a key of COSTS, that quality is drawn against: the first that the budget does not make equal."""
    fixed = GIVEN.get((found.get("budget") or {}).get("unit", ""))
    return next((key for key in COSTS if key != fixed and any(arm[key] for arm in found["arms"])), None)


def verdict(row: Mapping[str, Any]) -> str:
    """ "better" or "worse" if the interval excludes 0 and a corrected p-value is below 5 %, else "unclear"."""
    interval = row["interval"]
    significant = any(p is not None and p < LEVEL for p in (row["p_items_holm"], row["p_seeds_holm"]))
    if not significant or interval is None or interval[0] <= 0 <= interval[1]:
        return "unclear"
    return "better" if row["value"] > 0 else "worse"


def caption(found: Mapping[str, Any]) -> str:
    """How to read the differences, with the limits of this number of seeds."""
    seeds = len(found["seeds"])
    lowest = 2.0 ** (1 - seeds)
    different = found.get("asked_apart", [])
    return (
        "paired, mean over seeds; 95 %: test items (or their documents) and seeds drawn anew; seeds: how many agree in "
        "sign; p: sign flips over test items (these networks) and over seeds, Holm-corrected; better, worse: the "
        "interval excludes 0 "
        f"and a p is below {LEVEL}. With {seeds} {'seed' if seeds == 1 else 'seeds'} no p over seeds is below "
        f"{min(1, lowest):.2g}{'' if seeds > 1 else ', and nothing here is about other seeds'}."
    ) + (f" Not compared, as the arms have different test items: {', '.join(different)}." if different else "")


def amount(value: float | None) -> str:
    """1234567 -> "1.23 M"."""
    if value is None:
        return "-"
    for unit, size in UNITS:
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


def _p(value: float | None) -> str:
    return "-" if value is None else "< .001" if value < 1e-3 else f"{value:.3f}"


def _escaped(label: str) -> str:
    from rich.markup import escape

    return escape(label)
