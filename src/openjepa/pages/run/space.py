"""The space of embeddings: the variance on its principal axes, and planar maps of inputs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from html import escape

import numpy as np
import torch

from openjepa.core.seeding import seed_for
from openjepa.health.metrics import rank_of, singular_values
from openjepa.pages.parts.axis import Axis
from openjepa.pages.parts.chart import Dot, Line, cloud, line_chart
from openjepa.pages.run.samples import OTHERS, Factor, Samples

LEAST_SHARE = 1e-7  # of the variance: axes below it are not drawn
FEWEST_FOR_UMAP = 20  # inputs


def spectrum(samples: Samples) -> str:
    """Share of the variance on each principal axis, of the run and of its initialisation."""
    lines = []
    ranks = []
    most = 1
    for number, (name, vectors) in enumerate(samples.vectors.items()):
        centered = torch.from_numpy(vectors).double()
        values = singular_values(centered - centered.mean(0))
        energy = (values.square() / values.square().sum().clamp(min=1e-300)).numpy()  # [min(N, D)]
        lines.append(Line(name, [(i + 1.0, float(v)) for i, v in enumerate(energy) if v >= LEAST_SHARE], number))
        ranks.append(f"{name} {rank_of(values):.1f}")
        most = max(most, len(energy))
    shares = [share for line in lines for _, share in line.points] or [1.0]
    y = Axis(max(LEAST_SHARE, min(shares) / 2), 1.0, True)
    note = (
        f"Effective rank of {most} possible: {', '.join(ranks)}. A healthy curve falls slowly; a cliff means "
        "that the axes beyond it are not in use. Logarithmic axis."
    )
    return line_chart(
        "Share of the variance on each principal axis", lines, Axis(0, most), y, note=note, x_label="axis"
    )


def maps(samples: Samples) -> str:
    """The run's embeddings in a plane, coloured by each factor in turn: PCA, and UMAP if that is installed."""
    flat, share = pca(samples.vectors["run"])
    drawn = [_map("PCA", flat, f"The plane of the two strongest axes holds {share:.0%} of the variance.", samples)]
    initial, initial_share = pca(samples.vectors["initialisation"])
    note = f"Before training: the plane holds {initial_share:.0%} of the variance."
    drawn.append(_map("PCA of the initialisation", initial, note, samples))
    if importlib.util.find_spec("umap") is not None and samples.count >= FEWEST_FOR_UMAP:
        drawn.append(
            _map("UMAP", umap_plane(samples.vectors["run"]), "Distances between clusters mean little.", samples)
        )
    count = max(1, len(samples.factors))
    choice = "".join(
        f'<input type="radio" name="factor" id="factor-{i}"{" checked" if i == 0 else ""}>'
        f'<label for="factor-{i}">{escape(factor.name.replace("_", " "))} ({factor.share:.0%})</label>'
        for i, factor in enumerate(samples.factors)
        if count > 1
    )
    shown = "".join(
        f'<div class="plots two map-{i}">{"".join(views[i] for views in drawn)}</div>' for i in range(count)
    )
    legend = "<legend>Coloured by (and its share of the variance)</legend>" if count > 1 else ""
    frame = "fieldset" if count > 1 else "div"
    return f'<{frame} class="maps">{legend}{choice}{shown}</{frame}>'


def pca(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """[N, D] -> ([N, 2] coordinates on the two strongest principal axes, their share of the variance)."""
    centered = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    flat = np.zeros((len(vectors), 2))
    axes = min(2, len(values))
    flat[:, :axes] = left[:, :axes] * values[:axes]
    flat *= np.where(flat[np.abs(flat).argmax(0), [0, 1]] < 0, -1, 1)  # a sign that does not depend on the library
    return flat, float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-300))


def umap_plane(vectors: np.ndarray) -> np.ndarray:
    """[N, D] -> [N, 2] by UMAP with cosine distances and otherwise default settings."""
    seed = seed_for(0, "report", "umap") % 2**31
    return np.asarray(
        importlib.import_module("umap").UMAP(metric="cosine", random_state=seed, n_jobs=1).fit_transform(vectors)
    )


def _map(name: str, flat: np.ndarray, note: str, samples: Samples) -> Sequence[str]:
    """One drawing a factor; a single one if there is none."""
    if not samples.factors:
        return [cloud(name, [Dot(float(x), float(y), f"input {i + 1}") for i, (x, y) in enumerate(flat)], [], note)]
    return [_coloured(name, flat, note, factor) for factor in samples.factors]


def _coloured(name: str, flat: np.ndarray, note: str, factor: Factor) -> str:
    title = f"{name}, coloured by {factor.name.replace('_', ' ')}"
    dots = [
        Dot(float(x), float(y), factor.classes[label], int(label))
        for (x, y), label in zip(flat, factor.labels, strict=True)
    ]
    if factor.classes[-1] == OTHERS:
        dots.sort(key=lambda dot: dot.group != len(factor.classes) - 1)  # drawn first, below the others
    return cloud(title, dots, factor.classes, note)
