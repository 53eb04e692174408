"""Decode any picture to [S, S, 3] uint8: its largest central square, resized; what was mended is counted.

Files may declare false sizes, be truncated or hold thousands of frames. A picture's header is read first, and an
implausible size is refused before a pixel is decoded; any error of a decoder becomes a count with the origin of the
first case. Photographs are rotated by their EXIF tag, transparent ones laid on white, animated ones reduced to their
first frame. Grey of 10 to 32 bits is scaled by its range (`bit_depth`).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, features

from openjepa.data.files.readers import Counts
from openjepa.data.images.bit_depth import COLOUR_BITS, declared_bits, is_wide, keeps_upper_byte, to_8_bits

MOST_PIXELS = 64_000_000  # of a picture before it is shrunk, 8000 x 8000; more is taken for a decompression bomb
WIDE = "mended: more than 8 bits"
LEAST_SIDE = 4  # pixels; smaller pictures show nothing
AVIF = "avif" in features.modules and features.check_module("avif")  # not in every Pillow
# of all formats that Pillow reads, those that data sets use
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", *(["AVIF"] if AVIF else []))
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
    *([".avif"] if AVIF else []),
)


def decode(value: Any, pixels: int, origin: str, counts: Counts) -> np.ndarray | None:
    """`value` as [pixels, pixels, 3] uint8, or None if it cannot be used, with the reason counted.

    It may be a path, the bytes of a file, a mapping with "bytes" or "path" (as Hugging Face data sets store images), a
    Pillow image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of uint8.
    """
    if isinstance(value, np.ndarray) and value.shape == (pixels, pixels, 3) and value.dtype == np.uint8:
        return value
    try:
        with _open(value) as image:
            return _usable(image, pixels, origin, counts)
    except Image.DecompressionBombError:
        counts.add("image is a decompression bomb", origin)
    except FileNotFoundError:
        counts.add("image file is missing", origin)
    except Exception:  # decoders of broken files raise nearly anything: OSError, SyntaxError, struct.error, ...
        counts.add("image cannot be decoded", origin)
    return None


@contextmanager
def quiet() -> Generator[None]:
    """Suppress Pillow's warnings on sizes (`decode` checks them itself) and metadata. Enter it in one thread only."""
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


def _usable(image: Image.Image, pixels: int, origin: str, counts: Counts) -> np.ndarray | None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        counts.add("image is a decompression bomb", origin)
        return None
    if min(width, height) < LEAST_SIDE:
        counts.add(f"image below {LEAST_SIDE} pixels", origin)
        return None
    if getattr(image, "is_animated", False):
        counts.add("mended: animated, first frame taken", origin)
        image.seek(0)
    bits = declared_bits(image)
    halved = keeps_upper_byte(image)
    image.draft("RGB", (2 * pixels, 2 * pixels))  # JPEG can be decoded at a fraction of its size
    image = ImageOps.exif_transpose(image)
    if halved and not _is_bright_enough(image, origin, counts):
        return None
    rgb = _as_rgb(image, bits, origin, counts)
    return np.asarray(ImageOps.fit(rgb, (pixels, pixels), Image.Resampling.BICUBIC))


def _is_bright_enough(image: Image.Image, origin: str, counts: Counts) -> bool:
    """Whether the upper bytes of 16-bit colours still show the picture; both cases are counted."""
    most = max(int(most) for _, most in _extrema(image.convert("RGB")))
    if most < 2 ** (COLOUR_BITS - 8):
        counts.add(f"colours of 16 bits, of which {COLOUR_BITS} or fewer are used: save the image with 8", origin)
        return False
    counts.add(WIDE, origin)
    return True


def _extrema(image: Image.Image) -> tuple[tuple[float, float], ...]:
    found: Any = image.getextrema()
    return found


def _as_rgb(image: Image.Image, bits: int | None, origin: str, counts: Counts) -> Image.Image:
    """Any mode as 8-bit RGB; `bits` are those of a grey sample that are in use, if the file declares them."""
    if image.mode == "RGB":
        return image
    if image.mode == "CMYK":
        counts.add("mended: CMYK", origin)
        return image.convert("RGB")
    if is_wide(image):
        counts.add(WIDE, origin)
        return Image.fromarray(to_8_bits(_clean(image, origin, counts), bits, image.mode == "F")).convert("RGB")
    if image.has_transparency_data:
        counts.add("mended: transparent, laid on white", origin)
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")  # grey, palette, YCbCr, ...


def _clean(image: Image.Image, origin: str, counts: Counts) -> np.ndarray:
    """Values of a wide grey image, [H, W] float32, finite and not below 0; what is set to 0 is counted."""
    values = np.asarray(image, dtype=np.float32)
    if not np.isfinite(values).all():
        counts.add("mended: values that are no numbers, set to 0", origin)
        values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    if values.min(initial=0) < 0:
        counts.add("mended: values below 0, set to 0", origin)
        values = values.clip(0)
    return values
