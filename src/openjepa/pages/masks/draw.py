"""Drawings in HTML and SVG: samples with their masks, heat maps and charts. Colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from openjepa.core.picture import Patches, Pieces
from openjepa.pages.parts.images import png_uri

DEEPEST = 0.36  # opacity of the strongest colour in a heat map: the numbers on it stay readable
NUMBERED = 12  # heat maps of more rows or columns carry no numbers
BARS = 128  # of a chart at most; more positions share one
# of a chart's area, and the room for its labels
HEIGHT = 150
LEFT = 46
BOTTOM = 22


def text_sample(picture: Pieces, valid: np.ndarray, hidden: np.ndarray, shown: np.ndarray) -> str:
    """One text; neighbouring positions of one kind are one mark."""
    parts: list[tuple[str, str]] = []
    for text, is_real, is_hidden, is_shown in zip(picture.texts, valid, hidden, shown, strict=False):
        if is_real:
            kind = "hidden" if is_hidden else "shown" if is_shown else "unused"
            if parts and parts[-1][0] == kind:
                parts[-1] = (kind, parts[-1][1] + text)
            else:
                parts.append((kind, text))
    return f'<p class="text">{"".join(_mark(*part) for part in parts).lstrip()}</p>'


def _mark(kind: str, text: str) -> str:
    body = text.lstrip()
    space = text[: len(text) - len(body)]
    return f'{escape(space)}<span class="{kind}">{escape(body)}</span>'


def image_panel(picture: Patches, keep: np.ndarray | None, label: str) -> str:
    """Only the patches `keep` [N] of an image (None: all of it), with a line below."""
    said = escape(label)
    return f'<figure><img alt="{said}" src="{_png(picture, keep)}"><figcaption>{said}</figcaption></figure>'


def _png(picture: Patches, keep: np.ndarray | None) -> str:
    if keep is None:
        return png_uri(picture.pixels)
    height, width = picture.pixels.shape[:2]
    cells = keep.reshape(picture.grid)
    y, x = (np.arange(size) * cut // size for size, cut in zip((height, width), picture.grid, strict=True))
    return png_uri(picture.pixels, 255 * cells[y[:, None], x[None, :]].astype(np.uint8))


def strip(valid: np.ndarray, hidden: np.ndarray, shown: np.ndarray) -> str:
    """The bare positions of a row without a picture."""
    count = int(valid.sum())
    kinds = ["hidden" if h else "shown" if s else "unused" for h, s in zip(hidden[:count], shown[:count], strict=True)]
    cells = "".join(f'<rect class="{kind}" x="{i}" width="0.9" height="1"/>' for i, kind in enumerate(kinds))
    return f'<svg class="strip" viewBox="0 0 {count} 1" preserveAspectRatio="none" role="img">{cells}</svg>'


def heat_map(share: np.ndarray, grid: tuple[int, int], kind: str, title: str) -> str:
    """share [N] in [0, 1] on a grid; stronger colours are larger shares."""
    rows, columns = grid
    largest = max(float(share.max()), 1e-9)
    cells = []
    for position, value in enumerate(share):
        y, x = divmod(position, columns)
        at = f'x="{20 * x}" y="{20 * y}" width="19" height="19" rx="2"'
        tip = f"<title>row {y + 1}, column {x + 1}: {value:.1%}</title>"
        cells.append(
            f'<rect class="heat {kind}" {at} fill-opacity="{0.06 + DEEPEST * value / largest:.3f}">{tip}</rect>'
        )
        if max(grid) <= NUMBERED:
            cells.append(f'<text x="{20 * x + 9.5}" y="{20 * y + 12.5}" class="cell">{100 * value:.0f}</text>')
    box = f'viewBox="0 0 {20 * columns} {20 * rows}" role="img" aria-label="{escape(title)}"'
    least_most = f"{share.min():.0%} to {share.max():.0%}"
    return (
        f'<figure><svg class="map" {box}>{"".join(cells)}</svg><figcaption>{title}: {least_most}</figcaption></figure>'
    )


def position_chart(hidden: np.ndarray, rows: np.ndarray, title: str) -> str:
    """Share of the rows that hide each position [N] as bars, and the share of the rows that reach it as a line."""
    per_bar = -(-len(hidden) // BARS)
    starts = np.arange(0, len(hidden), per_bar)
    weight = np.add.reduceat(rows, starts)
    share = np.add.reduceat(hidden * rows, starts) / np.maximum(weight, 1)
    reach = np.maximum.reduceat(rows, starts) / max(1, rows.max())
    bars = [
        (value, f"{_range(start, per_bar, len(hidden))}: hidden in {value:.1%} of {rows[start]} samples")
        for start, value in zip(starts, share, strict=True)
    ]
    wide = 720 / len(bars)
    points = " ".join(f"{LEFT + (i + 0.5) * wide:.1f},{HEIGHT * (1 - r):.1f}" for i, r in enumerate(reach))
    line = f'<polyline class="reach" points="{points}"/>'
    labels = [(LEFT, "1", "start"), (LEFT + 720, str(len(hidden)), "end")]
    return _chart(bars, line, labels, title, "position; the line: share of the samples that reach it")


def histogram(shares: np.ndarray, title: str) -> str:
    """A histogram of shares [R] over samples, in twentieths."""
    counts = np.histogram(shares, bins=20, range=(0, 1))[0] / len(shares)
    bars = [(value, f"{5 * i} to {5 * i + 5} %: {value:.1%} of the samples") for i, value in enumerate(counts)]
    labels = [(LEFT, "0 %", "start"), (LEFT + 360, "50 %", "middle"), (LEFT + 720, "100 %", "end")]
    return _chart(bars, "", labels, title, "part of their positions")


def _chart(
    bars: Sequence[tuple[float, str]], over: str, labels: Sequence[tuple[float, str, str]], title: str, axis: str
) -> str:
    """Bars of (height in [0, 1], tooltip), scaled to the next tenth above the highest one."""
    top = 1.0 if over else min(1.0, np.ceil(10 * max(value for value, _ in bars)) / 10 or 0.1)
    wide = 720 / len(bars)
    drawn = [
        f'<rect class="hidden-bar" x="{LEFT + i * wide:.2f}" y="{HEIGHT * (1 - value / top):.2f}" '
        f'width="{0.86 * wide:.2f}" height="{HEIGHT * value / top:.2f}"><title>{escape(tip)}</title></rect>'
        for i, (value, tip) in enumerate(bars)
    ]
    lines = [
        f'<line class="rule" x1="{LEFT}" x2="{LEFT + 720}" y1="{y}" y2="{y}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{top * (1 - y / HEIGHT):.0%}</text>'
        for y in (0, HEIGHT / 2, HEIGHT)
    ]
    below = [f'<text x="{x}" y="{HEIGHT + 16}" text-anchor="{anchor}">{text}</text>' for x, text, anchor in labels]
    inside = "".join([*lines, *drawn, over, *below])
    box = f'viewBox="0 -8 {LEFT + 726} {HEIGHT + BOTTOM + 8}" role="img" aria-label="{escape(title)}"'
    caption = f"<figcaption>{title} ({axis})</figcaption>"
    return f'<figure class="wide"><svg class="chart" {box}>{inside}</svg>{caption}</figure>'


def _range(start: int, per_bar: int, count: int) -> str:
    last = min(start + per_bar, count)
    return f"position {start + 1}" if last == start + 1 else f"positions {start + 1} to {last}"
