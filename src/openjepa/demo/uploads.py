"""Images that a client uploads: checked before they are decoded, then read as the run's own images are.

A file's header is read first. Too many bytes, another kind of file and implausibly many pixels (a decompression bomb)
are each refused in one line; what the reader mends (transparency, CMYK, more than 8 bits) is said beside the answer.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from openjepa.core.errors import UserError
from openjepa.data.files.readers import Counts
from openjepa.data.images.dataset import decode
from openjepa.data.images.decode import FORMATS, MOST_PIXELS, quiet

MOST_MB = 10  # of a file
MENDED = "mended: "  # how reasons begin that are no failure


def read_upload(data: bytes, pixels: int) -> tuple[np.ndarray, str]:
    """A file's image as the run reads it [pixels, pixels, 3] uint8, and a note on what was mended or "".

    Raises UserError if the file is too large, no image, or one that cannot be used.
    """
    if len(data) > MOST_MB * 10**6:
        raise UserError(f"the file has {len(data) / 1e6:.1f} MB; this page takes at most {MOST_MB} MB: save it smaller")
    counts = Counts()
    with quiet():
        width, height = _size(data)
        if width * height > MOST_PIXELS:
            raise UserError(_too_many_pixels(f"{width} x {height} pixels"))
        image = decode(data, pixels, "the upload", counts)
    if image is None:
        raise UserError(f"the image cannot be used: {next(iter(counts))}")
    mended = [reason.removeprefix(MENDED) for reason in counts if reason.startswith(MENDED)]
    return image, f"The image was mended: {'; '.join(mended)}." if mended else ""


def formats() -> str:
    """The kinds of images that are read, in words."""
    *most, last = FORMATS
    return f"{', '.join(most)} or {last}"


def _size(data: bytes) -> tuple[int, int]:
    """Width and height as the file's header declares them. Raises UserError if it is no image."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Image.DecompressionBombError:
        raise UserError(_too_many_pixels("far more pixels than that")) from None
    except Exception:  # parsers of broken headers raise nearly anything: OSError, SyntaxError, struct.error, ...
        raise UserError(f"the file is no image that can be read; give {formats()}") from None


def _too_many_pixels(found: str) -> str:
    most = f"{MOST_PIXELS / 1e6:.0f} million"
    return f"at most {most} pixels are read, and the image declares {found}: it may be a decompression bomb; shrink it"
