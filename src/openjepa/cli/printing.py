"""Printing of results in a terminal. Colours only repeat words or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openjepa.cli.output import stdout
from openjepa.core.tables import folding_table

if TYPE_CHECKING:
    from openjepa.evals.scorecard import Scorecard
    from openjepa.evals.sweep import Sweep

SHOWN_TEXT = 160  # characters of a text that are printed
TREND = ("skill", "rank", "spread")


def print_verdict(record: Mapping[str, Any]) -> None:
    """Print the verdict with its evidence and, if it is not healthy, advice."""
    from rich.text import Text

    from openjepa.training.hooks import verdict_style

    console = stdout()
    kind = record.get("kind")
    line = Text("verdict: ").append(record["status"], style=verdict_style(record["status"]))
    line.append(f" ({kind})" if kind else "").append(f": {record['evidence']}")
    console.print(line, soft_wrap=True)
    if (skill := record.get("skill")) is not None:
        console.print(f"skill: {skill:.3f} (0 = no better than the best constant, 1 = perfect)", soft_wrap=True)
    if record.get("advice"):
        console.print(f"advice: {record['advice']}", soft_wrap=True, markup=False)


def print_scorecard(scorecard: Scorecard) -> None:
    """Print the table of all measures, and its summary in one sentence."""
    console = stdout()
    console.print(scorecard.table())
    console.print(scorecard.sentence(), soft_wrap=True, markup=False)


def print_peak_memory(peaks: Mapping[str, float]) -> None:
    """Print one line on the memory of training and evaluation, in GB, as far as it is known."""
    from openjepa.core.memory import listed_peaks

    if peaks:
        stdout().print(f"peak memory: {listed_peaks(peaks)}", soft_wrap=True)


def print_sweep(sweep: Sweep) -> None:
    """Print validation accuracy by encoder and layer (rows) and pooling (columns), then the chosen one on test."""
    from rich.text import Text

    poolings = list(dict.fromkeys(point.pooling for point in sweep.points))
    title = "Mean validation accuracy of latents"
    table = folding_table(["encoder"], ["layer", *poolings], title=title)
    for encoder, layer in dict.fromkeys(point[:2] for point in sweep.points):
        cells = []
        for pooling in poolings:
            point = next((p for p in sweep.points if p == (encoder, layer, pooling)), None)
            value = "-" if point is None else f"{sweep.mean(point):.3f}"
            cells.append(Text(f"{value} *", style="bold") if point == sweep.chosen else Text(value))
        table.add_row(encoder, "" if encoder == "embedding" else str(layer), *cells)
    console = stdout()
    console.print(table)
    console.print(f"* best on validation: {sweep.chosen.name}. On test, and only it:")
    print_scorecard(sweep.test)


def print_similar(result: Mapping[str, Any]) -> None:
    """Print every pair of texts with its cosine, relative to random pairs."""
    from rich.text import Text

    texts: Sequence[str] = result["texts"]
    labels = result.get("labels") or [str(number) for number in range(1, len(texts) + 1)]
    console = stdout()
    for label, text in zip(labels, texts, strict=True):
        console.print(f"{label}: {_cut(text)}", soft_wrap=True, markup=False)
    few = result["percentile"] is None
    table = folding_table(["pair"], ["cosine", "z"] if few else ["cosine", "z", "above random pairs"])
    for i, j in _pairs(len(texts)):
        cells = [f"{result['cosine'][i][j]:.3f}", f"{result['z'][i][j]:+.1f}"]
        if not few:
            cells.append(f"{result['percentile'][i][j]:.0f} %")
        table.add_row(Text(f"{labels[i]} - {labels[j]}"), *cells)
    console.print(table)
    console.print(_random_pairs(result["random_pairs"], few), soft_wrap=True, markup=False)


def _random_pairs(random: Mapping[str, Any], few: bool) -> str:
    """The reference of cosines, in one line."""
    moments = f"random pairs: mean {random['mean']:.3f}, standard deviation {random['std']:.3f}"
    meaning = "z counts standard deviations above that mean"
    if few:
        return (
            f"{moments}, of only {random['pairs']} pairs of {random['texts']} texts: too few for percentages, "
            f"--background FILE gives more; {meaning}"
        )
    return f"{moments} ({random['texts']} texts); {meaning}"


def print_trend(records: Sequence[Mapping[str, Any]]) -> None:
    """Print skill, rank and spread at every health check."""
    from rich.text import Text

    table = folding_table([], ["step", *TREND], ["verdict"])
    for record in records:
        cells = [f"{value:.3g}" if (value := record.get(name)) is not None else "-" for name in TREND]
        table.add_row(str(record["step"]), *cells, Text(record["status"]))
    stdout().print(table)


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_TEXT else line[: SHOWN_TEXT - 3] + "..."
