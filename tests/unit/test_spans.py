"""Span masks: an exact budget, in spans that keep apart, fair to every position, and a function of the generator."""

from __future__ import annotations

import math
from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openjepa.core.errors import ConfigError
from openjepa.core.seeding import generator_for
from openjepa.masking.spans import SpanMasker, composition

VALID = st.lists(st.booleans(), min_size=2, max_size=60).filter(lambda row: sum(row) >= 2)
RATIO = st.floats(0.01, 0.99)
MEAN_SPAN = st.floats(1.0, 12.0)


def draw(masker: SpanMasker, valid: Tensor, number: int = 0) -> Tensor:
    return masker(valid, generator_for(0, "mask", number))


def runs(hidden: Tensor) -> list[int]:
    """Lengths of the runs of True."""
    return [len(list(group)) for value, group in groupby(hidden.tolist()) if value]


def hide_and_spans(masker: SpanMasker, positions: int) -> tuple[int, int]:
    """The documented budget, and the number of spans it is cut into."""
    hide = min(max(1, round(masker.ratio * positions)), positions - 1)
    return hide, min(max(1, round(hide / masker.mean_span)), positions - hide + 1)


@settings(max_examples=200, deadline=None)
@given(VALID, RATIO, MEAN_SPAN, st.integers(0, 2**31))
def test_the_budget_is_exact_and_spans_keep_apart(row: list[bool], ratio: float, mean_span: float, seed: int) -> None:
    masker, valid = SpanMasker(ratio, mean_span), torch.tensor(row)
    hidden = draw(masker, valid, seed)
    hide, spans = hide_and_spans(masker, int(valid.sum()))
    assert hidden.dtype == torch.bool
    assert hidden.shape == valid.shape
    assert not (hidden & ~valid).any()
    assert int(hidden.sum()) == hide
    assert 1 <= hide < int(valid.sum())
    assert len(runs(hidden[valid])) == spans  # contiguous among valid positions, and never side by side
    assert torch.equal(draw(masker, valid, seed), hidden)
    assert torch.equal(valid, torch.tensor(row))  # the caller's tensor is left alone


def test_special_tokens_and_padding_are_never_hidden() -> None:
    valid = torch.tensor([False] + [True] * 9 + [False] + [True] * 5 + [False] * 8)
    hidden = torch.stack([draw(SpanMasker(0.6, 3), valid, i) for i in range(300)])
    assert not hidden[:, ~valid].any()
    assert hidden[:, valid].any(0).all()  # and every other position is, now and then


def test_other_generators_give_other_masks() -> None:
    valid = torch.ones(40, dtype=torch.bool)
    assert len({tuple(draw(SpanMasker(), valid, i).tolist()) for i in range(50)}) == 50


@pytest.mark.parametrize(
    ("positions", "ratio", "mean_span"), [(12, 0.3, 2.0), (9, 0.5, 1.0), (10, 0.4, 4.0), (2, 0.5, 4.0)]
)
def test_every_slot_between_visible_tokens_is_equally_likely_to_hold_a_span(
    positions: int, ratio: float, mean_span: float
) -> None:
    """The fair bound at the edges: V visible tokens leave V + 1 slots, the ones before the first and after the last
    token among them, and each holds one of the S spans with probability S / (V + 1).

    So the first and the last position, which only one slot can reach, are hidden with exactly this probability.
    """
    masker, valid, draws = SpanMasker(ratio, mean_span), torch.ones(positions, dtype=torch.bool), 1500
    hide, spans = hide_and_spans(masker, positions)
    expected = spans / (positions - hide + 1)
    taken = torch.zeros(positions - hide + 1)
    first = last = 0
    for i in range(draws):
        hidden = draw(masker, valid, i)
        first, last = first + int(hidden[0]), last + int(hidden[-1])
        starts = hidden & ~torch.cat([torch.tensor([False]), hidden[:-1]])
        taken[(~hidden).cumsum(0)[starts]] += 1  # slot = number of visible tokens before the span
    bound = 4.5 * math.sqrt(expected * (1 - expected) / draws) + 1e-9  # 4.5 standard errors: 1 in 150 000
    assert (taken / draws - expected).abs().max() <= bound
    assert abs(first / draws - expected) <= bound
    assert abs(last / draws - expected) <= bound


def test_positions_are_hidden_symmetrically_and_never_avoided() -> None:
    masker, valid, draws = SpanMasker(0.4, 4), torch.ones(20, dtype=torch.bool), 2000
    rate = torch.stack([draw(masker, valid, i) for i in range(draws)]).float().mean(0)  # [20]
    bound = 4.5 * math.sqrt(2 * 0.25 / draws)  # of a difference of two rates
    assert (rate - rate.flip(0)).abs().max() <= bound
    assert rate[6:14].std() < 0.04  # flat away from the edges
    assert rate.min() > 0.1
    assert rate.mean() == pytest.approx(0.4)


def test_spans_have_the_mean_length_asked_for() -> None:
    valid = torch.ones(400, dtype=torch.bool)
    lengths = [length for i in range(20) for length in runs(draw(SpanMasker(0.3, 4), valid, i))]
    assert sum(lengths) / len(lengths) == pytest.approx(4.0)
    assert len(set(lengths)) > 5  # not all the same


def test_compositions_are_uniform() -> None:
    """6 as an ordered sum of 3 parts of at least 1: each of the C(5, 2) = 10 ways one time in ten."""
    counts: dict[tuple[int, ...], int] = {}
    generator = generator_for(0, "composition")
    for _ in range(3000):
        parts = composition(6, 3, generator, at_least=1)
        counts[tuple(parts.tolist())] = counts.get(tuple(parts.tolist()), 0) + 1
    assert len(counts) == 10
    assert all(sum(parts) == 6 and min(parts) >= 1 for parts in counts)
    assert sum((n - 300) ** 2 / 300 for n in counts.values()) < 30  # chi-square, 9 degrees of freedom: 1 in 2000


@pytest.mark.parametrize("positions", [0, 1])
def test_rows_without_room_are_an_error(positions: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        draw(SpanMasker(), torch.arange(6) < positions)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_bad_ratio_is_named(ratio: float) -> None:
    with pytest.raises(ConfigError, match="mask ratio"):
        SpanMasker(ratio)


@pytest.mark.parametrize("mean_span", [0.0, 0.99, -3.0, math.nan])
def test_a_bad_span_is_named(mean_span: float) -> None:
    with pytest.raises(ConfigError, match="mean span"):
        SpanMasker(0.3, mean_span)
