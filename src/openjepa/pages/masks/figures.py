"""Statistics of masks over many samples: shares, regions, overlaps, and how often each position is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from openjepa.pages.masks.sampling import Masks, Sampled


class Figure(NamedTuple):
    """One figure over all rows that have it."""

    mean: float
    least: float
    most: float
    meaning: str


def figures(sampled: Sampled) -> dict[str, Figure]:
    """All figures by name; shares are parts of a row's real positions, in [0, 1]."""
    first = sampled.epochs[0]
    count = first.valid.sum(1)  # [R] real positions
    hidden = first.hidden.sum(1)  # [R]
    shown = first.shown.sum(1)  # [R]
    regions = region_counts(first.hidden, sampled.grid)  # [R]
    found = {
        "positions": _figure(count, "positions of a sample: tokens or patches"),
        "hidden_share": _figure(hidden / count, "of the positions are to be predicted"),
        "shown_share": _figure(shown / count, "of the positions are read by the context encoder"),
        "unused_share": _figure((count - hidden - shown) / count, "of the positions are neither shown nor hidden"),
        "hidden_positions": _figure(hidden, "positions to be predicted"),
        "shown_positions": _figure(shown, "positions of the context; the least is the smallest context"),
        "hidden_regions": _figure(regions, "hidden regions that do not touch"),
        "region_positions": _figure(hidden / regions, "positions of a hidden region"),
    }
    if first.times_hidden is not None and first.times_hidden.max() > 1:
        overlap = 1 - hidden / first.times_hidden.sum(1)  # [R]
        found["block_overlap"] = _figure(overlap, "of the hidden blocks' area lies in another block as well")
    found |= epoch_overlap(*sampled.epochs)
    return found


def epoch_overlap(first: Masks, second: Masks) -> dict[str, Figure]:
    """Hidden in both epochs / hidden in either, of the rows that are the same in both; and its chance level.

    Two random sets of shares p and q share about pq of pq + p(1 - q) + q(1 - p). Empty if no row can be compared.
    """
    width = min(first.valid.shape[1], second.valid.shape[1])
    same = first.valid.sum(1) == second.valid.sum(1)  # [R]; cropped views of a text differ
    if not same.any():
        return {}
    a = first.hidden[same, :width]  # [R, N]
    b = second.hidden[same, :width]  # [R, N]
    count = first.valid[same].sum(1)
    p = a.sum(1) / count
    q = b.sum(1) / count
    both = "hidden in two epochs / hidden in either: 1 = always the same positions"
    return {
        "epoch_overlap": _figure((a & b).sum(1) / (a | b).sum(1), both),
        "epoch_overlap_by_chance": _figure(p * q / (p + q - p * q), "the same of random positions of the same number"),
    }


def coverage(masks: Masks) -> dict[str, np.ndarray]:
    """{"hidden", "shown": share of the rows that have the position [N], "rows": how many rows have it [N]}."""
    rows = masks.valid.sum(0)
    share = {name: getattr(masks, name).sum(0) / np.maximum(rows, 1) for name in ("hidden", "shown")}
    return {**share, "rows": rows}


def region_counts(hidden: np.ndarray, grid: tuple[int, int] | None) -> np.ndarray:
    """hidden [R, N] -> [R] number of connected regions: runs of a text, 4-neighbourhoods of a grid."""
    if grid is None:
        starts = hidden & ~np.pad(hidden, ((0, 0), (1, 0)))[:, :-1]
        return starts.sum(1)
    from scipy.ndimage import label

    return np.array([label(row.reshape(grid))[1] for row in hidden])


def to_json(found: Mapping[str, Figure], sampled: Sampled) -> dict[str, Any]:
    """{"samples", "figures": {name: {"mean", "least", "most", "meaning"}}, "coverage": {"hidden", "shown", "rows"}}."""
    covered = coverage(sampled.epochs[0])
    return {
        "samples": len(sampled.epochs[0].valid),
        "grid": sampled.grid,
        "figures": {name: figure._asdict() for name, figure in found.items()},
        "coverage": {name: values.tolist() for name, values in covered.items()},
    }


def _figure(values: np.ndarray, meaning: str) -> Figure:
    return Figure(float(values.mean()), float(values.min()), float(values.max()), meaning)
