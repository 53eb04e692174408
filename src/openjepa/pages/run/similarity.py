"""Similarity of inputs: cosines of a few pairs, and nearest neighbours, each relative to random pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from openjepa.core.seeding import generator_for
from openjepa.evals.features import unit_rows
from openjepa.evals.similarity import RESOLUTION, random_pairs
from openjepa.pages.parts.document import heat_cell, table
from openjepa.pages.run.samples import Samples, text_html

PAIRED = 10  # inputs of the matrix
QUERIES = 4
NEIGHBOURS = 3


@dataclass(frozen=True)
class Chance:
    """Cosines of random pairs."""

    mean: float
    std: float

    def cell(self, cosine: float) -> str:
        """A cosine, coloured by its distance above random pairs."""
        strength = min(1.0, max(0.0, (cosine - self.mean) / max(1 - self.mean, RESOLUTION)))
        return heat_cell(f"{cosine:.2f}", strength)

    def z(self, cosine: float) -> float:
        """Standard deviations above the mean of random pairs."""
        return (cosine - self.mean) / max(self.std, RESOLUTION)


def semantic_check(found: Mapping[str, Any]) -> str:
    """An original, a variation and an unrelated text, from `Run.semantic_check`."""
    texts, labels = found["texts"], found.get("labels") or [str(i + 1) for i in range(len(found["texts"]))]
    random = found["random_pairs"]
    chance = Chance(random["mean"], random["std"])
    listed = "".join(
        f"<li><b>{escape(label)}:</b> {text_html(text)}</li>" for label, text in zip(labels, texts, strict=True)
    )
    rows = [
        [
            f"{escape(labels[i])} - {escape(labels[j])}",
            chance.cell(found["cosine"][i][j]),
            f"{found['z'][i][j]:+.1f}",
            "-" if found["percentile"] is None else f"{found['percentile'][i][j]:.0f} %",
        ]
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
    ]
    shown = table(["pair", "cosine", "z", "above random pairs"], rows, "similarity check")
    return f'<h3>Similarity check</h3><ul class="plain">{listed}</ul>{shown}{_random_note(chance)}'


def matrix(samples: Samples) -> str:
    """Cosines of all pairs of a few inputs: two each of several values of the first factor, where there is one."""
    chosen, values = pairs_of_values(samples)
    unit = unit_rows(samples.vectors["run"])
    cosines = unit[chosen] @ unit[chosen].T  # [P, P]
    chance = _chance(samples, "run")
    inputs = samples.show(chosen)
    rows = [
        [f'<span class="input"><b>{i + 1}</b> {html}{_value(values, i)}</span>', *(chance.cell(c) for c in cosines[i])]
        for i, html in enumerate(inputs)
    ]
    head = ["input", *(str(i + 1) for i in range(len(chosen)))]
    what = (
        f"Neighbouring inputs form pairs of one {escape(samples.factors[0].name.replace('_', ' '))}: where that "
        "decides, the diagonal has blocks of two by two. "
        if values
        else ""
    )
    shown = table(head, rows, "cosines of all pairs", "matrix")
    return f'<h3>A few inputs</h3><p class="note">{what}{_random_text(chance)}</p>{shown}'


def neighbours(samples: Samples) -> str:
    """The nearest other inputs of a few, for the run and for its initialisation."""
    queries = np.unique(np.linspace(0, samples.count - 1, QUERIES).round().astype(int))
    chances = {name: _chance(samples, name) for name in samples.vectors}
    blocks = []
    for query in queries:
        columns = []
        for name, chance in chances.items():
            near, cosines = nearest(samples.vectors[name], int(query))
            items = "".join(
                f'<li>{html}<span class="figures">cosine {cosine:.2f}, z {chance.z(cosine):+.1f}</span></li>'
                for html, cosine in zip(samples.show(near), cosines, strict=True)
            )
            columns.append(f"<div><h4>{escape(name)}</h4><ol>{items}</ol></div>")
        shown = samples.show([int(query)])[0]
        blocks.append(
            f'<div class="query"><p class="asked">{shown}</p><div class="sides">{"".join(columns)}</div></div>'
        )
    note = (
        f'<p class="note">The {NEIGHBOURS} nearest of {escape(samples.origin)}, by cosine; z counts standard '
        "deviations above the mean of random pairs of the same network.</p>"
    )
    return note + "".join(blocks)


def nearest(vectors: np.ndarray, query: int) -> tuple[list[int], list[float]]:
    """Numbers and cosines of the NEIGHBOURS other inputs nearest to input `query` of vectors [N, D]."""
    unit = unit_rows(vectors)
    cosines = np.asarray(unit @ unit[query])  # [N]
    order = [int(i) for i in np.argsort(-cosines, kind="stable") if i != query][:NEIGHBOURS]
    return order, [float(cosines[i]) for i in order]


def pairs_of_values(samples: Samples) -> tuple[list[int], list[str]]:
    """Numbers and values of two inputs of each value of the first factor; without a factor, PAIRED inputs."""
    if not samples.factors:
        return list(range(min(PAIRED, samples.count))), []
    factor = samples.factors[0]
    chosen = []
    values = []
    for label, name in enumerate(factor.classes):
        members = np.flatnonzero(factor.labels == label)[:2]
        if len(members) == 2 and len(chosen) < PAIRED:
            chosen += [int(i) for i in members]
            values += [name, name]
    return (chosen, values) if len(chosen) >= 4 else (list(range(min(PAIRED, samples.count))), [])


def _value(values: Sequence[str], i: int) -> str:
    return f' <span class="tag">{escape(values[i])}</span>' if values else ""


def _chance(samples: Samples, network: str) -> Chance:
    return Chance(*random_pairs(samples.vectors[network], generator_for(0, "report", "random pairs")))


def _random_text(chance: Chance) -> str:
    return (
        f"Random pairs have mean {chance.mean:.3f}, standard deviation {chance.std:.3f}; colour begins above that mean."
    )


def _random_note(chance: Chance) -> str:
    return f'<p class="note">{_random_text(chance)} z = standard deviations above it.</p>'
