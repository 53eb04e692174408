"""Patch masks: what holds for every draw, and that draws have no bias but the geometric one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openjepa.core.describe import settings_in_use
from openjepa.core.errors import ConfigError
from openjepa.core.seeding import generator_for
from openjepa.masking.blocks import (
    BlockMasker,
    MultiBlockMasker,
    PatchMaskConfig,
    PatchMasker,
    RandomMasker,
    block_size,
    build_masker,
    drawn_block,
    off_target,
)

MASKERS: dict[str, PatchMasker] = {
    "multiblock": MultiBlockMasker(),
    "greedy": MultiBlockMasker(targets=8, target_area=(0.5, 1.0)),
    "block": BlockMasker(0.5),
    "random": RandomMasker(0.6),
}
GRIDS = st.tuples(st.integers(1, 16), st.integers(1, 16)).filter(lambda grid: grid[0] * grid[1] > 1)


def draws(masker: PatchMasker, grid: tuple[int, int], count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """contexts, hiddens, each [count, H, W] bool."""
    masks = [masker(grid, generator_for(0, "mask", index)) for index in range(count)]
    contexts, hiddens, _ = (np.stack(part).reshape(count, *grid) for part in zip(*masks, strict=True))
    return contexts, hiddens


@pytest.mark.parametrize("name", MASKERS)
@given(grid=GRIDS, index=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_something_is_shown_something_hidden_nothing_both(name: str, grid: tuple[int, int], index: int) -> None:
    context, hidden, times = MASKERS[name](grid, generator_for(0, index))
    assert context.shape == hidden.shape == (grid[0] * grid[1],)
    assert context.any()
    assert hidden.any()
    assert not (context & hidden).any()
    assert np.array_equal(times > 0, hidden)


@pytest.mark.parametrize("name", MASKERS)
def test_masks_are_a_function_of_their_address(name: str) -> None:
    first, again = (MASKERS[name]((8, 8), generator_for(0, 5)) for _ in range(2))
    assert np.array_equal(first, again)
    others = {MASKERS[name]((8, 8), generator_for(0, i)).hidden.tobytes() for i in range(20)}
    assert len(others) > 5


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (6, 10)])
@pytest.mark.parametrize("masker", [MASKERS["multiblock"], BlockMasker(0.2), MASKERS["random"]])
def test_every_patch_is_hidden_and_shown_at_times(masker: PatchMasker, grid: tuple[int, int]) -> None:
    """The last row and column, and the middle (which a block of more than half of either side always hides)."""
    contexts, hiddens = draws(masker, grid, 1000)
    assert hiddens.any(0).all()
    assert contexts.any(0).all()


def block_coverage(grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """[H, W] probability that a block of this size, placed uniformly, covers each patch; mean: the block's area."""

    def along(length: int, block: int) -> np.ndarray:
        starts = np.arange(length - block + 1)[:, None]
        positions = np.arange(length)[None, :]
        return ((starts <= positions) & (positions < starts + block)).mean(axis=0)

    return np.outer(along(grid[0], size[0]), along(grid[1], size[1]))


def test_coverage_of_a_block_is_that_of_a_uniform_position() -> None:
    """Closed form: no patch is favoured by an exclusive bound or a raster order."""
    grid, size = (8, 8), (3, 4)
    share = size[0] * size[1] / 64
    uniform = np.random.default_rng(0).random((20_000, 4)).tolist()
    masks = [drawn_block(grid, (share, share), (size[0] / size[1],) * 2, row) for row in uniform]
    assert block_size(grid, share, size[0] / size[1]) == size
    found, expected = np.mean(masks, axis=0), block_coverage(grid, size)
    assert expected.mean() == pytest.approx(share)
    assert np.abs(found - expected).max() < 5 * np.sqrt(0.25 / len(masks))


@pytest.mark.parametrize("name", ["multiblock", "block", "random"])
def test_masks_know_no_direction(name: str) -> None:
    """Mirrored or turned, coverage is the same: cutting sets to a length in raster order would keep the top rows."""
    for masks in draws(MASKERS[name], (8, 8)):
        coverage = masks.mean(0)
        error = 5 * np.sqrt(2 * 0.25 / len(masks))
        for other in (coverage[::-1], coverage[:, ::-1]):
            assert np.abs(coverage - other).max() < error


def test_scale_and_aspect_are_drawn_apart() -> None:
    """One number for both would put all blocks on a curve; they fill the rectangle of areas and aspects."""
    masker = MultiBlockMasker(targets=1, target_area=(0.1, 0.4), target_aspect=(0.4, 2.5))
    _, hiddens = draws(masker, (40, 40), 1500)
    height, width = hiddens.any(2).sum(1), hiddens.any(1).sum(1)
    area, aspect = height * width / 1600, height / width
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.1
    quarters = [(a, b) for a in (area < 0.25, area >= 0.25) for b in (aspect < 1.45, aspect >= 1.45)]
    assert min((a & b).mean() for a, b in quarters) > 0.18
    assert area.min() < 0.12
    assert area.max() > 0.38


def test_multiblock_shares_are_those_of_the_config() -> None:
    masker = MultiBlockMasker(targets=1)
    contexts, hiddens = draws(masker, (32, 32), 400)
    shares = hiddens.mean((1, 2))
    assert shares.min() > 0.14
    assert shares.max() < 0.21
    outside = ~(contexts | hiddens)
    assert 0 < outside.mean() < 0.15  # what the context block leaves out
    full = MultiBlockMasker(context_area=(1.0, 1.0))
    contexts, hiddens = draws(full, (8, 8), 50)
    assert (contexts | hiddens).all()  # a block may fill the grid


def test_target_blocks_are_whole() -> None:
    _, hiddens = draws(MultiBlockMasker(targets=1), (14, 14), 200)
    for hidden in hiddens:
        rows, columns = hidden.any(1), hidden.any(0)
        assert hidden.sum() == rows.sum() * columns.sum()


@given(grid=GRIDS, ratio=st.floats(0.01, 0.99), index=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_random_patches_are_exactly_as_many_as_asked(grid: tuple[int, int], ratio: float, index: int) -> None:
    count = grid[0] * grid[1]
    context, hidden, _ = RandomMasker(ratio)(grid, generator_for(0, index))
    assert hidden.sum() == min(max(1, round(ratio * count)), count - 1)
    assert (context ^ hidden).all()


def test_every_patch_is_hidden_equally_often_where_patches_are_drawn_one_by_one() -> None:
    _, hiddens = draws(RandomMasker(0.25), (6, 6))
    assert np.abs(hiddens.mean(0) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / len(hiddens))


def rectangle(hidden: np.ndarray) -> tuple[int, int]:
    """Height and width of the hidden part, which has to be one block without gaps, inside the grid."""
    rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert hidden.sum() == height * width
    return int(height), int(width)


@given(grid=GRIDS, ratio=st.floats(0.01, 0.99), index=st.integers(0, 10**6))
@example(grid=(9, 2), ratio=0.109375, index=9)  # half a column of as many rows
@settings(max_examples=300, deadline=None)
def test_a_block_is_one_rectangle_of_the_configured_area(grid: tuple[int, int], ratio: float, index: int) -> None:
    """It does not go on at the other side, and its area is the nearest that its rows or columns permit."""
    context, hidden, _ = BlockMasker(ratio)(grid, generator_for(0, index))
    height, width = rectangle(hidden.reshape(grid))
    assert (context ^ hidden).all()
    error = abs(height * width - ratio * grid[0] * grid[1])
    assert error <= max(1, max(height, width) / 2, min(grid))
    if grid[0] >= 2 and grid[1] >= 2 and 1 / min(grid) < ratio < 1 - 1 / min(grid):
        assert error <= max(height, width) / 2


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (16, 16), (10, 24)])
@pytest.mark.parametrize("ratio", [0.25, 0.4, 0.5, 0.6, 0.75])
def test_blocks_hide_the_configured_ratio_on_average(ratio: float, grid: tuple[int, int]) -> None:
    _, hiddens = draws(BlockMasker(ratio), grid, 500)
    assert hiddens.mean() == pytest.approx(ratio, abs=0.04)  # of 64 patches, 2.5


def test_a_block_may_lie_at_every_position_inside_the_grid() -> None:
    """Each corner of the grid is reached, and every position is as likely as any other."""
    _, hiddens = draws(BlockMasker(0.25, (1.0, 1.0)), (6, 6))
    tops, lefts = hiddens.any(2).argmax(1), hiddens.any(1).argmax(1)
    counts = np.zeros((4, 4))
    np.add.at(counts, (tops, lefts), 1)
    assert np.abs(counts / len(hiddens) - 1 / 16).max() < 5 * np.sqrt(1 / 16 / len(hiddens))


def test_shapes_of_blocks_follow_the_aspect() -> None:
    for aspect, grid in ((0.5, (20, 20)), (1.0, (20, 20)), (2.0, (20, 20)), (1.0, (10, 30))):
        hidden = BlockMasker(0.3, (aspect, aspect))(grid, generator_for(0, 1)).hidden.reshape(grid)
        height, width = rectangle(hidden)
        assert height / grid[0] / (width / grid[1]) == pytest.approx(aspect, rel=0.25)


def test_greedy_targets_leave_a_tenth() -> None:
    contexts, _ = draws(MASKERS["greedy"], (10, 10), 300)
    assert contexts.sum((1, 2)).min() >= 10


def test_config_builds_each_strategy() -> None:
    kinds = {s: type(build_masker(PatchMaskConfig(strategy=s))) for s in ("multiblock", "block", "random")}
    assert list(kinds.values()) == [MultiBlockMasker, BlockMasker, RandomMasker]
    with pytest.raises(ConfigError, match="smaller one first"):
        PatchMaskConfig.load({"target_area": [0.3, 0.2]})


def test_shares_outside_the_whole_are_refused() -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        RandomMasker(1.0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        BlockMasker(0.0)
    with pytest.raises(ConfigError, match="at most 1"):
        MultiBlockMasker(target_area=(0.5, 2.0))


@pytest.mark.parametrize("name", MASKERS)
def test_a_single_patch_cannot_be_hidden(name: str) -> None:
    with pytest.raises(ConfigError, match="nothing to hide"):
        MASKERS[name]((1, 1), generator_for(0))


def test_an_area_that_a_coarse_grid_cannot_follow_is_said_with_what_it_becomes() -> None:
    config = PatchMaskConfig(target_area=(0.9, 1.0))
    (line,) = off_target(config, (2, 2))
    assert "mask.target_area=0.9 to 1 is not followed on this grid of 2 x 2 patches" in line
    assert "a target block is 25% of it, and 25% of the patches are hidden" in line
    _, hidden = draws(build_masker(config), (2, 2), 50)
    assert hidden.mean() == 0.25


@pytest.mark.parametrize("strategy", ["multiblock", "block", "random"])
@pytest.mark.parametrize("grid", [(6, 6), (8, 8), (14, 14)])
def test_settings_that_are_followed_are_no_remark(strategy: str, grid: tuple[int, int]) -> None:
    assert off_target(PatchMaskConfig(strategy=strategy), grid) == []


def test_a_ratio_that_is_not_followed_is_said() -> None:
    (line,) = off_target(PatchMaskConfig(strategy="random", ratio=0.6), (2, 2))
    assert line == "mask.ratio=0.6 is not followed on this grid of 2 x 2 patches: 50% of the patches are hidden"


def test_only_settings_of_the_strategy_are_in_use() -> None:
    used = {s: set(settings_in_use(PatchMaskConfig(strategy=s))) for s in ("multiblock", "block", "random")}
    assert used == {
        "multiblock": {"strategy", "targets", "target_area", "target_aspect", "context_area"},
        "block": {"strategy", "target_aspect", "ratio"},
        "random": {"strategy", "ratio"},
    }
