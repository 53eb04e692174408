"""Schedules: closed-form values, monotone where they should be, and pure."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openjepa.core.config import TrainConfig
from openjepa.core.progress import Progress
from openjepa.core.schedules import Schedule, constant, cosine, half_life_steps, late, linear, warmup_cosine
from openjepa.training.optim import weight_decay_schedule


def curve(schedule: Schedule, total: int) -> list[float]:
    return [schedule(Progress(step, total)) for step in range(total + 1)]


def test_endpoints_and_middle() -> None:
    assert curve(constant(3.0), 4) == [3.0] * 5
    assert curve(linear(0.0, 1.0), 4) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert curve(late(0.8, 0.5), 4) == pytest.approx([0.0, 0.0, 0.0, 0.4, 0.8])
    assert curve(late(0.8, 0.0), 4) == pytest.approx(curve(linear(0.0, 0.8), 4))
    assert curve(cosine(0.04, 0.4), 2) == pytest.approx([0.04, 0.22, 0.4])
    assert cosine(1.0, 0.0)(Progress(1, 4)) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_warmup_cosine_in_closed_form() -> None:
    values = curve(warmup_cosine(1.0, 0.1, warmup_steps=10), 110)
    assert values[0] == pytest.approx(0.2)
    assert values[5] == pytest.approx(0.6)
    assert values[10] == pytest.approx(1.0)
    assert values[60] == pytest.approx(0.55)  # half way down
    assert values[110] == pytest.approx(0.1)


@given(peak=st.floats(1e-6, 1.0), part=st.floats(0, 1), warmup=st.integers(0, 60), total=st.integers(1, 60))
def test_warmup_rises_and_then_falls(peak: float, part: float, warmup: int, total: int) -> None:
    final = part * peak
    values = curve(warmup_cosine(peak, final, warmup), total)
    turn = min(warmup, total)
    slack = 1e-12 * peak
    assert all(b > a for a, b in pairwise(values[: turn + 1]))
    assert all(b <= a + slack for a, b in pairwise(values[turn:]))
    assert all(min(0.2 * peak, final) - slack <= value <= peak + slack for value in values)
    if warmup < total:
        assert values[-1] == pytest.approx(final, abs=slack)


def test_beyond_the_end_nothing_moves() -> None:
    for schedule in (linear(0.0, 1.0), late(1.0, 0.5), cosine(1.0, 0.0), warmup_cosine(1.0, 0.1, 2)):
        assert schedule(Progress(15, 10)) == pytest.approx(schedule(Progress(10, 10)))


def test_half_life() -> None:
    assert round(half_life_steps(0.996)) == 173
    assert half_life_steps(1.0) == math.inf
    steps = half_life_steps(0.999)
    assert 0.999**steps == pytest.approx(0.5, rel=1e-3)


def test_weight_decay_is_constant_unless_it_has_an_end() -> None:
    assert curve(weight_decay_schedule(TrainConfig(weight_decay=0.04)), 2) == [0.04] * 3
    rising = weight_decay_schedule(TrainConfig(weight_decay=0.04, final_weight_decay=0.4))
    assert curve(rising, 2) == pytest.approx([0.04, 0.22, 0.4])
