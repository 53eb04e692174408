"""Schedules are pure functions of Progress: no state to save, plot or restore."""

from __future__ import annotations

import math
from collections.abc import Callable

from openjepa.core.progress import Progress

Schedule = Callable[[Progress], float]


def constant(value: float) -> Schedule:
    """Always `value`."""
    return lambda progress: value


def linear(start: float, end: float) -> Schedule:
    """Linear from `start` to `end` over the run (I-JEPA's EMA momentum, Assran et al. 2023)."""
    return lambda progress: start + (end - start) * progress.fraction


def late(end: float, begin: float) -> Schedule:
    """0 up to the fraction `begin` of the run, in [0, 1), then linear to `end` at its end."""
    return lambda progress: end * max(0.0, progress.fraction - begin) / (1 - begin)


def cosine(start: float, end: float) -> Schedule:
    """Half a cosine from `start` to `end` over the run (I-JEPA's weight decay, Assran et al. 2023)."""
    return lambda progress: end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress.fraction))


def warmup_cosine(peak: float, final: float, warmup_steps: int, start_factor: float = 0.2) -> Schedule:
    """Linear from `start_factor * peak` to `peak` in `warmup_steps`, then a cosine down to `final` at the end."""

    def value(progress: Progress) -> float:
        if progress.step < warmup_steps:
            return peak * (start_factor + (1 - start_factor) * progress.step / warmup_steps)
        done = (progress.step - warmup_steps) / max(1, progress.total_steps - warmup_steps)
        return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return value


def half_life_steps(momentum: float) -> float:
    """Steps after which half of an EMA target has been replaced: ln 2 / (1 - momentum). 0.996 -> 173."""
    return math.inf if momentum >= 1 else math.log(2) / (1 - momentum)
