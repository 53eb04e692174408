"""Visible and hidden patches of an image: a grid [H, W] -> (context, hidden), both bool.

Both are sets of patches of one image, they are disjoint, and neither is ever empty. With `multiblock` some patches are
in neither: the context is a separate block, so that its border does not reveal where the targets are.

Every image has its own draws and number of patches: images of a batch are padded to one length, not cut to it. That and
three more choices avoid biases of common implementations: scale and aspect are two draws; the last row and column can
be chosen like the first; and a block may fill the grid. A patch in the middle is still covered more often than one at
the border, as more blocks of one size reach it.

Source of the multi-block masks: I-JEPA, Assran et al. 2023, section 3 and appendix A.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from openjepa.core.config import BaseConfig, Interval
from openjepa.core.errors import ConfigError
from openjepa.core.masks import Grid, PatchMask, PatchMasker
from openjepa.core.seeding import generator_for

LEAST_CONTEXT = 0.1  # of the patches; target blocks that would leave less are not used
DRAWS = 64  # masks drawn to compare with the settings
AREA_TOLERANCE = 0.05  # of the grid: rounding to whole patches


class PatchMaskConfig(BaseConfig):
    """Which patches are hidden, and how."""

    FIRST = ("strategy", "ratio")

    strategy: Literal["multiblock", "block", "random"] = "multiblock"
    """I-JEPA's blocks, one block, or patches drawn one by one"""
    targets: int = Field(4, ge=1, le=255)
    """multiblock: target blocks; they may overlap"""
    target_area: Interval = (0.15, 0.2)
    """multiblock: of each target block, as a share of the grid"""
    target_aspect: Interval = (0.75, 1.5)
    """multiblock and block: height / width of a block"""
    context_area: Interval = (0.85, 1.0)
    """multiblock: of the visible square block, before the targets are removed"""
    ratio: float = Field(0.6, gt=0, lt=1)
    """block and random: hidden part of the patches, all others are visible (block: as nearly as whole rows allow)"""

    def unused_here(self) -> set[str]:
        used = {
            "multiblock": {"targets", "target_area", "target_aspect", "context_area"},
            "block": {"target_aspect", "ratio"},
            "random": {"ratio"},
        }
        return set(type(self).model_fields) - used[self.strategy] - {"strategy"}


def build_masker(config: PatchMaskConfig) -> PatchMasker:
    """The configured masker."""
    match config.strategy:
        case "multiblock":
            return MultiBlockMasker(config.targets, config.target_area, config.target_aspect, config.context_area)
        case "block":
            return BlockMasker(config.ratio, config.target_aspect)
        case "random":
            return RandomMasker(config.ratio)


def least_context(grid: Grid) -> int:
    """The fewest patches that target blocks may leave."""
    return max(1, math.floor(LEAST_CONTEXT * grid[0] * grid[1]))


def off_target(config: PatchMaskConfig, grid: Grid) -> list[str]:
    """A warning if masks on this grid cannot follow the settings; empty if they do, up to rounding to patches.

    Figures are means over DRAWS masks. Blocks are made of whole patches and have to leave a context, so a coarse grid
    cannot have every area.
    """
    masker = build_masker(config)
    generators = [generator_for(0, "off target", draw) for draw in range(DRAWS)]
    hidden = float(np.mean([masker(grid, generator).hidden.mean() for generator in generators]))
    where = f"on this grid of {grid[0]} x {grid[1]} patches"
    if not isinstance(masker, MultiBlockMasker):
        if abs(hidden - config.ratio) <= AREA_TOLERANCE:
            return []
        return [f"mask.ratio={config.ratio:g} is not followed {where}: {hidden:.0%} of the patches are hidden"]
    low, high = config.target_area
    numbers = [torch.rand(config.targets, 4, generator=generator).tolist() for generator in generators]
    area = float(np.mean([block.mean() for draws in numbers for block in masker.target_blocks(grid, draws)]))
    if low - AREA_TOLERANCE <= area <= high + AREA_TOLERANCE:
        return []
    return [
        f"mask.target_area={low:g} to {high:g} is not followed {where}: a target block is {area:.0%} of it, and "
        f"{hidden:.0%} of the patches are hidden; give a smaller area, or make encoder.patch smaller"
    ]


@dataclass(frozen=True)
class MultiBlockMasker:
    """Hides some blocks; the rest of a large square block is visible. Raises ConfigError for areas above 1."""

    targets: int = 4
    target_area: Interval = (0.15, 0.2)
    target_aspect: Interval = (0.75, 1.5)
    context_area: Interval = (0.85, 1.0)

    def __post_init__(self) -> None:
        if max(self.target_area[1], self.context_area[1]) > 1:
            raise ConfigError("mask.target_area and mask.context_area are shares of the grid: at most 1")

    def __call__(self, grid: Grid, generator: torch.Generator) -> PatchMask:
        """context, hidden [H * W]. Raises ConfigError for a grid of fewer than two patches."""
        _require_two(grid)
        *targets, context = torch.rand(self.targets + 1, 4, generator=generator).tolist()
        times = np.sum(self.target_blocks(grid, targets), axis=0, dtype=np.uint8)  # [H, W]
        hidden = times > 0
        visible = drawn_block(grid, self.context_area, (1.0, 1.0), context) & ~hidden
        if visible.sum() < least_context(grid):
            visible = ~hidden
        return PatchMask(visible.ravel(), hidden.ravel(), times.ravel())

    def target_blocks(self, grid: Grid, draws: list[list[float]]) -> list[np.ndarray]:
        """The target blocks that leave a context, [H, W] bool each; a single patch if none does."""
        blocks: list[np.ndarray] = []
        hidden = np.zeros(grid, dtype=bool)
        for numbers in draws:
            block = drawn_block(grid, self.target_area, self.target_aspect, numbers)
            if (~(hidden | block)).sum() >= least_context(grid):
                hidden |= block
                blocks.append(block)
        if not blocks:
            single = np.zeros(grid, dtype=bool)
            single[int(draws[0][2] * grid[0]), int(draws[0][3] * grid[1])] = True
            blocks.append(single)
        return blocks


@dataclass(frozen=True)
class BlockMasker:
    """Hides one block of `ratio` of the grid, as nearly as whole rows and columns allow; the rest is visible.

    A block of more than a quarter of the grid covers the middle often, one of more than half of either side always.
    Raises ConfigError for a ratio outside (0, 1).
    """

    ratio: float = 0.6
    aspect: Interval = (0.75, 1.5)

    def __post_init__(self) -> None:
        _require_share(self.ratio)

    def __call__(self, grid: Grid, generator: torch.Generator) -> PatchMask:
        """context, hidden [H * W]. Raises ConfigError for a grid of fewer than two patches."""
        _require_two(grid)
        aspect_draw, top_draw, left_draw = torch.rand(3, generator=generator).tolist()
        height, width = part_of(grid, self.ratio, _between(self.aspect, aspect_draw))
        hidden = _placed(grid, (height, width), top_draw, left_draw).ravel()
        return PatchMask(~hidden, hidden, hidden.astype(np.uint8))


@dataclass(frozen=True)
class RandomMasker:
    """Hides exactly round(ratio * N) patches, at least 1 and at most N - 1, uniformly at random.

    Raises ConfigError for a ratio outside (0, 1).
    """

    ratio: float = 0.6

    def __post_init__(self) -> None:
        _require_share(self.ratio)

    def __call__(self, grid: Grid, generator: torch.Generator) -> PatchMask:
        """context, hidden [H * W]. Raises ConfigError for a grid of fewer than two patches."""
        _require_two(grid)
        count = grid[0] * grid[1]
        hidden = np.zeros(count, dtype=bool)
        hide = min(max(1, round(self.ratio * count)), count - 1)
        hidden[torch.randperm(count, generator=generator)[:hide].numpy()] = True
        return PatchMask(~hidden, hidden, hidden.astype(np.uint8))


def drawn_block(grid: Grid, area: Interval, aspect: Interval, draws: list[float]) -> np.ndarray:
    """[H, W] bool, True within one block. `draws` are four uniform numbers in [0, 1): area, aspect, row, column."""
    return _placed(grid, block_size(grid, _between(area, draws[0]), _between(aspect, draws[1])), draws[2], draws[3])


def block_size(grid: Grid, area: float, aspect: float) -> Grid:
    """Rows and columns of a block with this share of the grid's area and this height / width, in patches.

    On a grid that is not square the block is stretched like the grid. It is cut to the grid where it would not fit.
    """
    height = round(grid[0] * math.sqrt(area * aspect))
    width = round(grid[1] * math.sqrt(area / aspect))
    return min(max(1, height), grid[0]), min(max(1, width), grid[1])


def part_of(grid: Grid, ratio: float, aspect: float) -> Grid:
    """Rows and columns of a block whose area is the nearest to this share of the grid that its rows permit.

    The rows are as in `block_size`, except where the columns are one or all of the grid. At least one row or column
    stays outside: the error is at most half the block's longer side, or the grid's shorter side there.
    """
    patches = ratio * grid[0] * grid[1]
    height, _ = block_size(grid, ratio, aspect)
    width = min(max(1, round(patches / height)), grid[1])
    if width == grid[1] or patches < height:
        height = min(max(1, round(patches / width)), grid[0])
    if (height, width) == grid:
        return (height - 1, width) if width <= height else (height, width - 1)
    return height, width


def _placed(grid: Grid, size: Grid, top_draw: float, left_draw: float) -> np.ndarray:
    """[H, W] bool, True within a block of this size, at any position inside the grid; the draws lie in [0, 1)."""
    (height, width) = size
    (rows, columns) = grid
    top = int(top_draw * (rows - height + 1))  # the last row included
    left = int(left_draw * (columns - width + 1))
    mask = np.zeros(grid, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _between(span: Interval, draw: float) -> float:
    return span[0] + (span[1] - span[0]) * draw


def _require_two(grid: Grid) -> None:
    if grid[0] * grid[1] < 2:
        raise ConfigError(f"a grid of {grid[0]} x {grid[1]} patches has nothing to hide; make encoder.patch smaller")


def _require_share(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise ConfigError(f"mask ratio must lie between 0 and 1 (given: {ratio})")
