"""The fixed inputs on which an export is compared with its run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

SENTENCES = (
    "The ferry left the harbour before the storm reached the outer islands.",
    "She asked for three copies of the report, signed and dated.",
    "Nobody had counted the boxes in the basement since spring.",
    "It works; it did not work yesterday.",
)
TEXTS = (
    "a",
    ".",
    "ok",
    "?!",
    "Hello world",
    "  white space   around and\twithin\n",
    SENTENCES[0],
    " ".join(SENTENCES),
    "First line.\nSecond line.\n\nA new paragraph, with a list:\n- one\n- two",
    "Mr. Smith paid $3.50 (approx. 2,99 EUR) at 9 a.m.; e.g. for No. 7.",
    "UPPER CASE AND lower case, naïve café, Ærøskøbing",
    "Η πόλη κοιμάται ακόμη.",
    "Поезд опоздал на два часа.",
    "東京は今日も雨です。明日は晴れるでしょう。",
    "القطار تأخر ساعتين.",
    "यह एक वाक्य है।",
    "emoji 🙂🚀 and symbols ∑ ≤ ½ €",
    "[MASK] and [SEP] and <s> written by hand",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "https://example.org/a/b?c=d&e=f#g user@example.org",
    "0123456789 " * 12,
)
LONGER = 3  # times the longest row, of the longest text
SHAPES = ((1.0, 1.0), (0.5, 0.5), (2.5, 2.5), (1.5, 1.0), (1.0, 2.2))  # height and width, in sides of the square


def proof_texts(max_tokens: int) -> list[str]:
    """Short, long, nearly empty and non-Latin texts, and one that is longer than a row of `max_tokens`."""
    return [*TEXTS, " ".join(SENTENCES * (1 + LONGER * max_tokens // 40))]


def proof_images(pixels: int) -> list[Image.Image]:
    """Pictures of several sizes and shapes, with gradients, edges and noise."""
    generator = np.random.default_rng(0)
    images = []
    for number, (tall, wide) in enumerate(SHAPES):
        height = int(tall * pixels)
        width = int(wide * pixels)
        y, x = np.mgrid[0:height, 0:width]
        waves = 127 * np.sin(x / (3 + number))[..., None] * np.cos(y[..., None] / np.array([4, 5, 7]))
        noise = generator.normal(0, 20, (height, width, 3))
        edge = 60 * (x > width // 2)[..., None]
        images.append(Image.fromarray(np.clip(100 + waves + noise + edge, 0, 255).astype(np.uint8)))
    return images


def as_squares(images: Sequence[Image.Image], pixels: int) -> list[Image.Image]:
    """What the model card says to do with pictures that are not square; the others as they are."""
    return [
        image if image.width == image.height else ImageOps.fit(image, (pixels, pixels), Image.Resampling.BICUBIC)
        for image in images
    ]
