"""Draws a scene with Pillow: a group of equal shapes and one other shape, on a patterned ground, with some noise.

Everything is drawn `OVERSAMPLE` times too large as masks and then reduced, which is Pillow's cheapest anti-aliasing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

OVERSAMPLE = 3
RELIEF = 0.1  # how much lighter and darker than its colour a ground is
PERIODS = 4  # of a ground's pattern along a side
GRAIN = 6.0  # standard deviation of the noise added to every pixel, of 255
RGB = tuple[int, int, int]
Point = tuple[float, float]


class Figure(NamedTuple):
    """One shape to draw. Lengths are parts of the image's side."""

    shape: str
    texture: str
    colour: RGB
    centre: Point  # x, y
    radius: float
    turn: float  # radians


class Ground(NamedTuple):
    """What lies behind the shapes: a pattern, in light and dark of one colour, shifted by parts of its period."""

    pattern: str
    colour: RGB
    shift: Point  # x, y


def draw(
    figures: Sequence[Figure], ground: Ground, light: Point, pixels: int, noise: np.random.Generator
) -> np.ndarray:
    """The scene as [pixels, pixels, 3] uint8. `light` is the slope of brightness along x and y, in parts of it."""
    relief = _relief(ground, pixels * OVERSAMPLE, noise)  # [side, side]
    bright = 1 + RELIEF * relief[..., None]  # [side, side, 1]
    canvas = Image.fromarray((bright * np.array(ground.colour)).clip(0, 255).astype(np.uint8))
    for figure in figures:
        _draw_figure(canvas, figure)
    image = np.asarray(canvas.reduce(OVERSAMPLE), dtype=np.float32)  # [S, S, 3]
    along = np.arange(1 - pixels, pixels, 2, dtype=np.float32) / pixels  # from -1 to 1
    image = image * (1 + light[0] * along[None, :, None] + light[1] * along[:, None, None])
    image += GRAIN * noise.standard_normal(image.shape, dtype=np.float32)
    return image.clip(0, 255).astype(np.uint8)


def _draw_figure(canvas: Image.Image, figure: Figure) -> None:
    side = canvas.width
    radius = figure.radius * side
    box = math.ceil(2.9 * radius)  # holds a square in any turn
    left, top = (round(c * side - box / 2) for c in figure.centre)
    mask = Image.new("L", (box, box))
    pen = ImageDraw.Draw(mask)
    for points, ink in outlines(figure.shape):
        pen.polygon(_placed(points, box / 2, radius, figure.turn), fill=ink)
    canvas.paste(figure.colour, (left, top), mask)
    if figure.texture != "plain":
        pattern = _pattern(figure.texture, side).crop((0, 0, box, box))
        canvas.paste(_darker(figure.colour), (left, top), ImageChops.multiply(mask, pattern))


def _placed(points: Sequence[Point], middle: float, radius: float, turn: float) -> list[Point]:
    c = radius * math.cos(turn)
    s = radius * math.sin(turn)
    return [(middle + c * x - s * y, middle + s * x + c * y) for x, y in points]


def _darker(colour: RGB) -> RGB:
    r, g, b = (int(0.35 * channel) for channel in colour)
    return r, g, b


@cache
def outlines(shape: str) -> tuple[tuple[tuple[Point, ...], int], ...]:
    """Polygons of a shape around (0, 0), of about equal area, each with 255 to fill it or 0 to cut it out."""
    if shape == "circle":
        return ((_regular(24, 0.9), 255),)
    if shape == "ring":
        return (_regular(24, 1.0), 255), (_regular(24, 0.55), 0)
    if shape == "moon":
        cut = tuple((x + 0.55, y - 0.15) for x, y in _regular(24, 0.85))
        return (_regular(24, 1.0), 255), (cut, 0)
    if shape == "square":
        return ((_regular(4, 1.15, math.pi / 4), 255),)
    if shape == "diamond":
        return ((tuple((0.75 * x, 1.2 * y) for x, y in _regular(4, 1.0)), 255),)
    if shape == "triangle":
        return ((_regular(3, 1.15, -math.pi / 2), 255),)
    if shape == "star":
        inner = _regular(5, 0.5, -math.pi / 2 + math.pi / 5)
        outer = _regular(5, 1.2, -math.pi / 2)
        return ((tuple(point for pair in zip(outer, inner, strict=True) for point in pair), 255),)
    if shape == "cross":
        a = 0.33
        b = 1.0
        corners = ((a, b), (a, a), (b, a), (b, -a), (a, -a), (a, -b))
        return ((corners + tuple((-x, -y) for x, y in corners), 255),)
    raise ValueError(f"there is no shape {shape!r}")


def _regular(corners: int, radius: float, start: float = 0.0) -> tuple[Point, ...]:
    angles = (start + 2 * math.pi * k / corners for k in range(corners))
    return tuple((radius * math.cos(angle), radius * math.sin(angle)) for angle in angles)


def _relief(ground: Ground, side: int, noise: np.random.Generator) -> np.ndarray:
    """Where a ground is light and dark: [side, side] between -1 and 1, of mean 0."""
    ticks = np.arange(side) / side * PERIODS
    x = ticks[None, :] + ground.shift[0]  # [1, side]
    y = ticks[:, None] + ground.shift[1]  # [side, 1]
    match ground.pattern:
        case "paper":
            return np.zeros((side, side))
        case "plank":
            return np.broadcast_to(_bands(y), (side, side))
        case "curtain":
            return np.broadcast_to(_bands(x), (side, side))
        case "tile":
            return _bands(x) * _bands(y)
        case "water":
            return np.sin(2 * math.pi * (y + 0.3 * np.sin(math.pi * x)))
        case "gravel":
            stones = noise.standard_normal((2 * PERIODS, 2 * PERIODS)).clip(-1, 1)
            number = (np.arange(side) * 2 * PERIODS) // side
            return stones[number[:, None], number[None, :]]
    raise ValueError(f"there is no ground {ground.pattern!r}")


def _bands(phase: np.ndarray) -> np.ndarray:
    """1 in the first half of each period, -1 in the second."""
    return np.where(phase % 1 < 0.5, 1.0, -1.0)


@cache
def _pattern(texture: str, side: int) -> Image.Image:
    """Where a texture is dark: [side, side] in 0 and 255, with a period of a tenth of the side."""
    period = side / 10
    y, x = np.mgrid[0:side, 0:side] / period % 1  # [side, side] phases
    if texture == "striped":
        dark = y < 0.5
    elif texture == "checked":
        dark = (x < 0.5) ^ (y < 0.5)
    elif texture == "dotted":
        dark = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1
    else:
        raise ValueError(f"there is no texture {texture!r}")
    return Image.fromarray(np.where(dark, 255, 0).astype(np.uint8))
