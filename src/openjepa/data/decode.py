"""Any picture to [S, S, 3] uint8: the largest square in its middle, shrunk or enlarged; what was mended is counted.

Files from elsewhere lie about their sizes, stop in the middle or hold thousands of frames. A picture's header is read
first and what is too large to be honest is refused before a pixel is decoded; whatever a decoder throws at a broken
file becomes a count with the place of the first case. Upside-down photographs (EXIF) are turned, transparent ones laid
on white, animated ones stop at their first frame.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from openjepa.data.readers import Counts

MOST_PIXELS = 64_000_000  # of a picture before it is shrunk, 8000 x 8000; more is taken for a decompression bomb
LEAST_SIDE = 4  # pixels; smaller pictures show nothing
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # of all that Pillow reads, those that data sets use
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


def decode(value: Any, pixels: int, place: str, counts: Counts) -> np.ndarray | None:
    """`value` as [pixels, pixels, 3] uint8, or None if it cannot be used, with the reason counted.

    It may be a path, the bytes of a file, a mapping with "bytes" or "path" (as Hugging Face data sets store images), a
    Pillow image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of uint8.
    """
    if isinstance(value, np.ndarray) and value.shape == (pixels, pixels, 3) and value.dtype == np.uint8:
        return value
    try:
        with _open(value) as image:
            return _usable(image, pixels, place, counts)
    except Image.DecompressionBombError:
        counts.add("image is a decompression bomb", place)
    except FileNotFoundError:
        counts.add("image file is missing", place)
    except Exception:  # decoders of broken files raise nearly anything: OSError, SyntaxError, struct.error, ...
        counts.add("image cannot be decoded", place)
    return None


@contextmanager
def quiet() -> Generator[None]:
    """Without Pillow's warnings on sizes (`decode` checks them itself) and metadata. Enter it in one thread only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _open(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        return value.copy()
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8:
            raise ValueError("an image array holds uint8")
        return Image.fromarray(value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value)
    if isinstance(value, bytes):
        return Image.open(io.BytesIO(value), formats=FORMATS)
    if isinstance(value, str | Path):
        return Image.open(value, formats=FORMATS)
    raise ValueError(f"a {type(value).__name__} is no image")


def _usable(image: Image.Image, pixels: int, place: str, counts: Counts) -> np.ndarray | None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        counts.add("image is a decompression bomb", place)
        return None
    if min(width, height) < LEAST_SIDE:
        counts.add(f"image below {LEAST_SIDE} pixels", place)
        return None
    if getattr(image, "is_animated", False):
        counts.add("mended: animated, first frame taken", place)
        image.seek(0)
    image.draft("RGB", (2 * pixels, 2 * pixels))  # JPEG can be decoded at a fraction of its size
    image = ImageOps.exif_transpose(image)
    rgb = _as_rgb(image, place, counts)
    return np.asarray(ImageOps.fit(rgb, (pixels, pixels), Image.Resampling.BICUBIC))


def _as_rgb(image: Image.Image, place: str, counts: Counts) -> Image.Image:
    """Any mode as 8-bit RGB."""
    if image.mode == "RGB":
        return image
    if image.mode == "CMYK":
        counts.add("mended: CMYK", place)
        return image.convert("RGB")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        counts.add("mended: more than 8 bits", place)
        values = np.asarray(image, dtype=np.float64)
        scale = 255 / max(65535.0 if image.mode != "F" else 1.0, float(values.max()))
        return Image.fromarray((values.clip(0) * scale).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        counts.add("mended: transparent, laid on white", place)
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")  # grey, palette, YCbCr, ...
