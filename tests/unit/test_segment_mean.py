"""`segment_mean`: a plain loop says what it is; order, padding, precision and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openjepa.core.seeding import generator_for
from openjepa.data.text.masked import positions_within
from openjepa.models.transformer import segment_mean

D = 5


def latents(segment: Tensor, draw: int = 0) -> Tensor:
    return torch.randn(*segment.shape, D, generator=generator_for(0, "segment mean", draw))  # [B, K, D]


def means(x: Tensor, segment: Tensor, count: int) -> Tensor:
    return segment_mean(x, segment, positions_within(segment), count)


def by_loop(x: Tensor, segment: Tensor, count: int) -> Tensor:
    """[B, K, D] -> [N, D]"""
    own = [x[segment == number] for number in range(count)]
    return torch.stack([x.mean(0) if len(x) else x.sum(0) for x in own])


@st.composite
def segments(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Segments of rows [B, K], side by side or with gaps and padding (-1), and their count; some have no token."""
    number, rows = 0, []
    for _ in range(draw(st.integers(1, 4))):
        row: list[int] = []
        for kind, length in draw(st.lists(st.tuples(st.sampled_from(["tokens", "gap", "none"]), st.integers(1, 40)))):
            row += {"tokens": [number] * length, "gap": [-1] * length, "none": []}[kind]
            number += kind != "gap"
        rows.append(row)
    width = max(map(len, rows)) + draw(st.integers(0, 3))
    padded = [row + [-1] * (width - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.int64).view(len(rows), width), number + draw(st.integers(0, 2))


@settings(deadline=None)
@given(segments())
def test_it_is_the_mean_of_each_segment_and_zero_without_tokens(given: tuple[Tensor, int]) -> None:
    segment, count = given
    x = latents(segment)
    found = means(x, segment, count)
    assert found.shape == (count, D)
    for number in range(count):
        own = x[segment == number]  # [L, D]
        torch.testing.assert_close(found[number], own.mean(0) if len(own) else torch.zeros(D))


@settings(deadline=None)
@given(segments())
def test_its_gradient_is_that_of_the_loop(given: tuple[Tensor, int]) -> None:
    segment, count = given
    weight = torch.randn(count, D, generator=generator_for(0, "weight"))
    gradients = []
    for mean in (means, by_loop):
        x = latents(segment).requires_grad_()
        found = mean(x, segment, count) if count else x.sum(1)[:0]
        (found.pow(2) * weight).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    assert not gradients[0][segment < 0].any()


@settings(deadline=None)
@given(segments(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_content_of_padding_change_no_digit(given: tuple[Tensor, int], random) -> None:
    segment, count = given
    x = latents(segment)
    order = random.sample(range(len(segment)), len(segment))
    other = torch.where((segment < 0)[..., None], latents(segment, draw=1), x)
    expected = means(x, segment, count)
    assert torch.equal(means(x[order], segment[order], count), expected)
    assert torch.equal(means(other, segment, count), expected)
    wider = torch.cat([segment, torch.full((len(segment), 3), -1)], 1)
    torch.testing.assert_close(means(torch.cat([x, x.new_ones(len(x), 3, D)], 1), wider, count), expected)


def test_segments_may_be_numbered_in_any_order_over_the_rows() -> None:
    segment = torch.tensor([[3, 3, 0, -1], [2, 5, 5, 5]])
    x = latents(segment)
    torch.testing.assert_close(means(x, segment, 6), by_loop(x, segment, 6))


@pytest.mark.parametrize(("rows", "width", "count"), [(2, 0, 3), (2, 4, 0), (2, 0, 0), (0, 4, 2)])
def test_without_tokens_or_segments_there_are_zeros_or_nothing(rows: int, width: int, count: int) -> None:
    segment = torch.full((rows, width), -1)
    x = latents(segment).requires_grad_()
    found = means(x, segment, count)
    assert torch.equal(found, torch.zeros(count, D))
    found.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("length", [16, 100, 1000])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_long_segments_are_rounded_no_worse_than_by_torch(length: int, mean: float) -> None:
    segment = torch.arange(8).repeat_interleave(length).view(4, -1)
    x = mean + torch.randn(*segment.shape, 256, generator=generator_for(0, "long"))
    exact = by_loop(x.double(), segment, 8)
    ours, torchs = ((found - exact).abs().mean() for found in (means(x, segment, 8), by_loop(x, segment, 8)))
    assert ours <= 1.1 * torchs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_summed_and_returned_in_fp32(dtype: torch.dtype) -> None:
    segment = torch.zeros(1, 400, dtype=torch.int64)
    x = (1 + latents(segment)).to(dtype)
    found = means(x, segment, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, by_loop(x.double(), segment, 1).float())
