"""The scenes world: small synthetic pictures of shapes, drawn from known factors, with captions; images' dSprites.

A scene is a group of one to four equal shapes in one quarter of the picture, and one other shape beside, above or
below it. Ten factors: the group's shape (8), colour (8), size (3), texture (4), count (4), place (4) and relation to
the other shape (4, two for each place), the other's shape and colour (8, 8), and the pattern of the background (6),
whose colour carries no information: a mean over pixels does not reveal it. Hues, places, turns, light and noise vary,
but no task uses them. All shapes of a group are alike, so a hidden part of it can be predicted from the rest; the other
shape can be predicted only from the caption.

Scene i of (split, seed) is a pure function of these three: 4.7 million combinations of factors, each drawn anew. The
splits share no picture's content: a fixed eighth of all combinations of shape, colour, texture, other shape and other
colour is kept for `test`, for every seed.

What may be concluded: whether a method represents what it could predict, and how methods compare at that under equal
budgets. Nothing on photographs: here every edge is sharp, every colour is pure, and factors are independent.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from openjepa.core.errors import UserError
from openjepa.core.seeding import seed_for
from openjepa.core.tasks import Classification
from openjepa.data.worlds.captions import PHRASES, caption
from openjepa.data.worlds.drawing import RGB, Figure, Ground, draw
from openjepa.data.worlds.draws import Draw, draws_at, scrambled

Split = Literal["train", "test"]
Classes = tuple[int, ...]  # per factor, in the order of NAMES

KEY = ("shape", "colour", "texture", "other_shape", "other_colour")  # decides the split
NAMES = (*KEY, "size", "count", "place", "relation", "background")
FACTORS = {name: tuple(phrases[0] for phrases in PHRASES[name.removeprefix("other_")]) for name in NAMES}
TEST_SHARE = 8  # one combination in eight is held out
CAPTIONS = 5  # of each scene, as in COCO
PIXELS = 48

COLOURS: dict[str, RGB] = {
    "red": (215, 40, 40),
    "orange": (240, 140, 20),
    "yellow": (235, 215, 40),
    "green": (45, 165, 60),
    "cyan": (50, 205, 205),
    "blue": (45, 85, 225),
    "purple": (140, 55, 180),
    "pink": (245, 130, 185),
}
GROUND_SATURATION = (0.05, 0.4)
GROUND_BRIGHTNESS = (0.2, 0.85)
RADII = (0.07, 0.1, 0.13)  # small, medium, large, in parts of the picture's side
SPREAD = 0.13  # of the shapes of a group around its middle
HUE_JITTER = 18  # largest shift of a channel, of 255


@dataclass(frozen=True)
class Scene:
    """A synthetic picture, its captions, and the class of each factor it was drawn from."""

    image: np.ndarray  # [S, S, 3] uint8
    captions: tuple[str, ...]
    factors: dict[str, int]  # factor -> index into FACTORS[factor]


class Scenes(Dataset[Scene]):
    """Map-style data set of synthetic scenes; item i is a function of (split, seed, i).

    Its factors, picture and captions can be made separately.
    Raises UserError for an unknown split, a size below one or a picture of less than 16 pixels.
    """

    def __init__(self, split: Split = "train", size: int = 200_000, seed: int = 0, pixels: int = PIXELS) -> None:
        if split not in ("train", "test"):
            raise UserError(f"scenes: split must be 'train' or 'test', not {split!r}")
        if size < 1:
            raise UserError(f"scenes: size must be at least 1, not {size}")
        if pixels < 16:
            raise UserError(f"scenes: pixels must be at least 16, not {pixels}: shapes would not be seen")
        self.split: Split = split
        self.size = size
        self.seed = seed
        self.pixels = pixels

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Scene:
        return Scene(self.image(index), self.captions(index), self.factors(index))

    def factors(self, index: int) -> dict[str, int]:
        """The class of each factor of scene `index`."""
        return classes_for(self._draw("factors", index), held_out=self.split == "test")

    def image(self, index: int) -> np.ndarray:
        """The picture of scene `index`, [pixels, pixels, 3] uint8."""
        noise = np.random.default_rng(seed_for(self.seed, *self._address("noise", index)))
        return render(self.factors(index), self._draw("picture", index), self.pixels, noise)

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of scene `index`."""
        classes = self.factors(index)
        draw = self._draw("captions", index)
        return tuple(caption(classes, draw) for _ in range(CAPTIONS))

    def _address(self, what: str, index: int) -> tuple[int | str, ...]:
        if not -self.size <= index < self.size:
            raise IndexError(f"scene {index} of {self.size}")
        return "scenes", self.split, index % self.size, what

    def _draw(self, what: str, index: int) -> Draw:
        return draws_at(self.seed, *self._address(what, index))


def factor_tasks(train: int = 3000, test: int = 2000, seed: int = 0, pixels: int = PIXELS) -> list[Classification]:
    """One probe task a factor, on scenes of combinations no model was trained on; images are [S, S, 3] uint8."""
    scenes = Scenes("test", train + test, seed, pixels)
    images = [scenes.image(index) for index in range(len(scenes))]
    rows = [scenes.factors(index) for index in range(len(scenes))]
    train_images = images[:train]  # the same lists for all factors: they are embedded once
    test_images = images[train:]
    tasks = []
    for name, classes in FACTORS.items():
        labels = [row[name] for row in rows]
        tasks.append(Classification(name, train_images, labels[:train], test_images, labels[train:], classes))
    return tasks


def classes_for(draw: Draw, *, held_out: bool) -> dict[str, int]:
    """Classes of all factors, for a scene of the wanted side of the split."""
    while True:
        classes = {name: int(draw() * len(FACTORS[name])) for name in NAMES}
        if is_held_out(tuple(classes[name] for name in KEY)) == held_out:
            break
    # a group on the left may be left of the other shape, but not right of it
    across = classes["place"] % 2
    down = classes["place"] // 2
    classes["relation"] = across if classes["relation"] < 2 else 2 + down
    return classes


def is_held_out(key: Classes) -> bool:
    """Whether this shape, colour, texture, other shape and other colour belong to the test split: a fixed hash."""
    number = 0
    for part in key:
        number = number * 97 + part
    return scrambled(number) % TEST_SHARE == 0


def render(classes: dict[str, int], uniform: Draw, pixels: int, noise: np.random.Generator) -> np.ndarray:
    """The picture of these classes as [pixels, pixels, 3] uint8; what they leave open is drawn from `uniform`."""
    names = {name: FACTORS[name][index] for name, index in classes.items()}

    def between(low: float, high: float) -> float:
        return low + (high - low) * uniform()

    def near(colour: RGB) -> RGB:
        r, g, b = (min(255, max(0, round(c + between(-HUE_JITTER, HUE_JITTER)))) for c in colour)
        return r, g, b

    across = classes["place"] % 2
    down = classes["place"] // 2
    beside = classes["relation"] < 2
    x = 0.27 + 0.46 * across + between(-0.02, 0.02)
    y = 0.27 + 0.46 * down + between(-0.02, 0.02)
    other_x = 0.27 + 0.46 * (1 - across if beside else across) + between(-0.06, 0.06)
    other_y = 0.27 + 0.46 * (down if beside else 1 - down) + between(-0.06, 0.06)
    radius = RADII[classes["size"]]
    colour = near(COLOURS[names["colour"]])
    figures = [
        Figure(names["shape"], names["texture"], colour, (x + dx, y + dy), radius * between(0.93, 1.07), _turn(uniform))
        for dx, dy in _arrangement(classes["count"] + 1, uniform)
    ]
    other = near(COLOURS[names["other_colour"]])
    figures.append(
        Figure(names["other_shape"], "plain", other, (other_x, other_y), between(0.12, 0.17), _turn(uniform))
    )
    tint = colorsys.hsv_to_rgb(uniform(), between(*GROUND_SATURATION), between(*GROUND_BRIGHTNESS))
    r, g, b = (round(255 * channel) for channel in tint)
    ground = Ground(names["background"], (r, g, b), (uniform(), uniform()))
    light = between(-0.15, 0.15), between(-0.15, 0.15)
    return draw(figures, ground, light, pixels, noise)


def _turn(uniform: Draw) -> float:
    return (uniform() - 0.5) * math.radians(24)


def _arrangement(count: int, uniform: Draw) -> Sequence[tuple[float, float]]:
    """Offsets of `count` shapes from their middle: random corners of a square, with jitter."""
    corners = [(-SPREAD, -SPREAD), (SPREAD, SPREAD), (SPREAD, -SPREAD), (-SPREAD, SPREAD)]
    first = int(uniform() * 4)
    chosen = [corners[(first + k) % 4] for k in range(count)]
    if count == 1:
        chosen = [(0.0, 0.0)]
    return [(dx + 0.03 * (uniform() - 0.5), dy + 0.03 * (uniform() - 0.5)) for dx, dy in chosen]
