"""Pictures embedded in the page as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np

WIDEST = 160  # pixels of an image on a page


def png_uri(pixels: np.ndarray, alpha: np.ndarray | None = None) -> str:
    """pixels [H, W, 3] uint8, optionally with alpha [H, W] uint8; every k-th pixel where there are more than WIDEST."""
    from PIL import Image

    step = -(-max(pixels.shape[:2]) // WIDEST)
    image = pixels[::step, ::step]
    if alpha is not None:
        image = np.concatenate([image, alpha[::step, ::step, None]], 2)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
