"""Drawings of the image panels: patches of an image, and a map of cosines over them, as HTML and SVG.

Cosines are coloured from the mean of random pairs (dark) to 1 (bright), so that a colour means the same as a z: a run
whose cosines are all high, related or not, has a dark map. Each patch carries its value as a number, or where there is
no room, as a tooltip.
"""

from __future__ import annotations

from html import escape

import numpy as np

from openjepa.core.picture import Patches
from openjepa.pages.parts.images import png_uri

NUMBERED = 9  # maps of more rows or columns carry no numbers
SCALE = "viridis"  # dark to bright in even steps, also without colour vision
STOPS = 7  # of the legend
BRIGHT = 0.55  # share of the scale from which a number on it is black


def thumbnail(pixels: np.ndarray, label: str) -> str:
    """An image [S, S, 3] uint8, enlarged without smoothing."""
    return f'<img class="picture" alt="{escape(label)}" src="{png_uri(pixels)}">'


def patch_figure(picture: Patches, keep: np.ndarray, label: str) -> str:
    """Only the patches `keep` [N] of an image, with a line below."""
    height, width = picture.pixels.shape[:2]
    rows, columns = picture.grid
    y = np.arange(height) * rows // height
    x = np.arange(width) * columns // width
    alpha = 255 * keep.reshape(picture.grid)[y[:, None], x[None, :]].astype(np.uint8)
    image = f'<img class="picture" alt="{escape(label)}" src="{png_uri(picture.pixels, alpha)}">'
    return f"<figure>{image}<figcaption>{escape(label)}</figcaption></figure>"


def cosine_map(picture: Patches, cosine: np.ndarray, low: float, label: str) -> str:
    """The image with the cosine [N] of each hidden patch (NaN elsewhere), coloured from `low` to 1."""
    rows, columns = picture.grid
    side = 20
    cells = []
    for position in np.flatnonzero(~np.isnan(cosine)):
        value = float(cosine[position])
        row, column = divmod(int(position), columns)
        share = share_of(value, low)
        title = f"<title>row {row + 1}, column {column + 1}: cosine {value:.3f}</title>"
        at = f'x="{side * column}" y="{side * row}" width="{side}" height="{side}"'
        cells.append(f'<rect class="cell" {at} fill="{colour(share)}">{title}</rect>')
        if max(picture.grid) <= NUMBERED:
            ink = "#000" if share > BRIGHT else "#fff"
            where = f'x="{side * (column + 0.5)}" y="{side * (row + 0.5)}"'
            cells.append(f'<text {where} fill="{ink}">{value:.2f}</text>')
    box = f'viewBox="0 0 {side * columns} {side * rows}" role="img" aria-label="{escape(label)}"'
    whole = f'width="{side * columns}" height="{side * rows}" preserveAspectRatio="none"'
    image = f'<image href="{png_uri(picture.pixels)}" {whole}/>'
    drawn = f'<svg class="picture" {box}>{image}{"".join(cells)}</svg>'
    return f"<figure>{drawn}<figcaption>{escape(label)}</figcaption></figure>"


def legend(low: float) -> str:
    """What the colours of `cosine_map` mean."""
    stops = ", ".join(colour(number / (STOPS - 1)) for number in range(STOPS))
    return (
        f'<div class="ramp"><span class="bar" style="background:linear-gradient(to right, {stops})"></span>'
        f"<span><b>dark</b>: {round(low, 2) + 0:.2f}, the mean of random pairs, or below</span>"
        "<span><b>bright</b>: 1, exactly the target</span></div>"
    )


def share_of(value: float, low: float) -> float:
    """Where a cosine lies on the scale from `low` to 1, in [0, 1]."""
    return min(1.0, max(0.0, (value - low) / max(1 - low, 1e-6)))


def colour(share: float) -> str:
    """The colour at a share of the scale, #rrggbb."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps[SCALE](share))
