"""The law of all tables: at 80 columns they show every character that they show at 1000, whatever the figures."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import openjepa
from openjepa.cli import align, configs, evaluate, printing, readout
from openjepa.core.tables import folding_table
from openjepa.evals.scorecard import Measure, Scorecard
from openjepa.evals.sweep import Point, Sweep
from openjepa.studies.results import SKILL
from openjepa.studies.table import tables

LONG, WIDE = "a-rather-long-name_of_a.measure=[0.125,0.25]", -1234567.891
SOURCES = Path(openjepa.__file__).parent


def scorecard() -> Scorecard:
    values = dict.fromkeys(("run", "init", "random", "tfidf", "pixels"), WIDE)
    return Scorecard({f"{LONG}{i}": Measure(values, WIDE, (WIDE, -WIDE)) for i in range(2)})


def sweep() -> Sweep:
    points = [Point(encoder, layer, pooling) for encoder in ("student", "teacher") for layer in (1, 12)
              for pooling in ("mean", "first", "attentive", "everything else")]  # fmt: skip
    return Sweep({point: {LONG: WIDE} for point in points}, points[0], scorecard())


def study() -> dict[str, Any]:
    names = [SKILL, LONG, "another headline"]
    measures = {name: {"mean": WIDE, "init": WIDE, "chance": WIDE} for name in names}
    cost = {"verdict": "2 healthy, 1 stopped", "train_s": 1e9, "tokens": 1.23e15, "flops": 1.23e15}
    arms = [{"label": f"{LONG}{i}", SKILL: WIDE, "measures": measures, **cost} for i in range(4)]
    tested = {"interval": (WIDE, -WIDE), "agreeing": 3, "seeds": 3, "p_items_holm": 0.1, "p_seeds_holm": 0.1}
    rows = [{"arm": arm["label"], "measure": LONG, "headline": True, "value": WIDE, **tested} for arm in arms]
    return {"headlines": [LONG], "jobs": 2, "base": "base", "arms": arms, "differences": rows, "seeds": [0, 1, 2],
            "baselines": {"tfidf": dict.fromkeys(names, WIDE), "pixels": dict.fromkeys(names, WIDE)}}  # fmt: skip


def aligned() -> None:
    run = {name: [WIDE] for name in ("own_cosine", "shuffled_cosine", "random_cosine", "mrr", "top1")}
    runs = [{"label": f"{LONG}{i}", "mrr_chance": WIDE, "top1_chance": WIDE, **run} for i in range(3)]
    align.print_alignment({"runs": runs, "figure": "figure.png"})


def read() -> None:
    row = {"readout": WIDE, "shuffled": WIDE, "chance": WIDE, "gain": WIDE, "interval": (WIDE, -WIDE)}
    example = dict.fromkeys(("text", "target", "predicted"), LONG * 3)
    about = {"texts": 9, "learn_from": "target", "steps": 9, "train_s": 1.0}
    readout.print_readout({"measures": {f"target_{LONG}": row}, "examples": [example], **about})


def similar() -> None:
    square = [[WIDE, WIDE], [WIDE, WIDE]]
    asked = {"texts": ["a", "b"], "labels": [LONG, LONG], "random_pairs": {"mean": 0.1, "std": 0.1, "texts": 9}}
    printing.print_similar({**asked, "cosine": square, "z": square, "percentile": square})


def trend() -> None:
    printing.print_trend([{"step": 10**12, "skill": WIDE, "rank": 1e-12, "spread": WIDE, "status": LONG}])


def checks() -> None:
    evaluate.print_checks([SimpleNamespace(name=LONG, passed=False, detail=LONG * 3)])


def of_a_study() -> None:
    for table in tables(study()):
        printing.stdout().print(table)


SHOWN = {
    "scorecard": lambda: printing.print_scorecard(scorecard()),
    "sweep": lambda: printing.print_sweep(sweep()),
    "study": of_a_study,
    "align": aligned,
    "readout": read,
    "similar": similar,
    "trend": trend,
    "check": checks,
    "recipes": configs.recipes,
    "config explain": lambda: configs.explain("vl_jepa"),
}


def characters(show: Callable[[], None], width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All that is printed, without spaces and lines."""
    console = Console(width=width, file=io.StringIO(), record=True, highlight=False)
    for module in (align, configs, evaluate, readout, printing):
        monkeypatch.setattr(module, "stdout", lambda: console)
    show()
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width or width == 80  # sentences below a table wrap in the terminal
    return sorted(character for character in text if not character.isspace() and character != "─")


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_80_columns_cut_nothing(show: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = characters(show, 1000, monkeypatch)
    assert len(whole) > 50
    assert characters(show, 80, monkeypatch) == whole


@pytest.mark.parametrize(("key", "every"), [(None, True), ("train.loggers", False)])
def test_square_brackets_of_a_setting_are_text(key: str | None, every: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=1000, file=io.StringIO(), record=True, highlight=False)
    monkeypatch.setattr(configs, "stdout", lambda: console)
    configs.explain("t_jepa", key, every=every)
    assert "such as [trackio]:" in console.export_text()


def test_tables_are_made_in_one_position() -> None:
    """So that the next one folds too."""
    makers = [file.relative_to(SOURCES).as_posix() for file in SOURCES.rglob("*.py") if "add_column" in names(file)]
    assert makers == ["core/tables.py"]


def names(file: Path) -> set[str]:
    return {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}


def test_figures_stand_at_the_right_of_their_columns() -> None:
    table = folding_table(["name"], ["value"], ["note"])
    table.add_row("a", "1", "b")
    console = Console(width=40, file=io.StringIO(), record=True)
    console.print(table)
    header, row = [line for line in console.export_text().splitlines() if line.strip(" ─")]
    assert row.index("1") == header.index("value") + len("value") - 1
    assert row.index("b") == header.index("note")
