"""Grey images of more than 8 bits: find how many bits are in use, and convert to 8.

A 12-bit camera writes 16-bit files, whose values end at 4095: read as 16 bits they are nearly black. The range is that
of the bits which the file declares to be in use (TIFF's BitsPerSample and MaxSampleValue, PNG's sBIT), or, where the
data exceed it or none is declared, the least of 8, 10, 12, 14, 16, 24 and 32 bits that holds the maximum of the data.
Floats up to 1 are read as shares of white. So two files of one camera are scaled alike unless one of them is dark
throughout and does not declare its depth.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from PIL import Image

USUAL_BITS = (8, 10, 12, 14, 16, 24, 32)
WIDE_MODES = ("I", "F")  # and all that begin with I;16
# tags
TIFF_BITS = 258
TIFF_MAX_VALUE = 281
PNG_HEAD = 8  # bytes before the first chunk
PNG_CHUNKS = 100  # searched for sBIT, which precedes the pixels
COLOUR_BITS = 12  # bits in use of 16-bit colours, whose upper 8 Pillow keeps: with no more in use, 4 are left


def is_wide(image: Image.Image) -> bool:
    """Whether a grey image has more than 8 bits, or floats."""
    return image.mode.startswith("I;16") or image.mode in WIDE_MODES


def to_8_bits(values: np.ndarray, declared: int | None, floats: bool) -> np.ndarray:
    """Values of any range, finite and not below 0 -> uint8; `declared` is the number of bits that the file declares."""
    most = float(values.max(initial=0))
    white = 1.0 if floats and most <= 1 else float(2 ** _bits_of(most, declared) - 1)
    return np.rint(values * (255 / white)).astype(np.uint8)


def _bits_of(most: float, declared: int | None) -> int:
    if declared is not None and most <= 2**declared - 1:
        return declared
    return next((bits for bits in USUAL_BITS if most <= 2**bits - 1), int(most).bit_length())  # floats of any size


def declared_bits(image: Image.Image) -> int | None:
    """How many bits of a sample the file declares to be in use; None if only how many it stores (16, 32), or nothing.

    Call it before the pixels are read.
    """
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        most = _first(tags.get(TIFF_MAX_VALUE))
        bits = _first(tags.get(TIFF_BITS))
        if most is not None and 255 <= most < 65535:
            return int(most).bit_length()
        return bits if bits is not None and 8 <= bits < 16 else None
    if image.format == "PNG":
        return _significant_bits(image)
    return None


def keeps_upper_byte(image: Image.Image) -> bool:
    """Whether Pillow keeps only the upper 8 bits of a 16-bit colour image. Call it before the pixels are read."""
    return not is_wide(image) and any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))


def _first(value: Any) -> int | None:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _significant_bits(image: Image.Image) -> int | None:
    """PNG's sBIT of a grey image of 16 bits."""
    stream: Any = getattr(image, "fp", None)
    if stream is None or not is_wide(image):
        return None
    before = stream.tell()
    try:
        stream.seek(PNG_HEAD)
        for _ in range(PNG_CHUNKS):
            length, name = struct.unpack(">I4s", stream.read(8))
            if name == b"sBIT" and length >= 1:
                bits = stream.read(1)[0]
                return bits if 8 <= bits < 16 else None
            if name in (b"IDAT", b"IEND"):
                return None
            stream.seek(length + 4, 1)
    except (OSError, struct.error, IndexError):
        return None
    finally:
        stream.seek(before)
    return None
