"""The axis of a chart: a range of values, linear or logarithmic, with its ticks and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A range of values on so many units of the drawing."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Position of a value on the axis, clipped to [0, 1]."""
        low, high, at = (self._scaled(v) for v in (self.low, self.high, value))
        return min(1.0, max(0.0, (at - low) / (high - low)))

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    def ticks(self, most: int = 5) -> list[float]:
        """Round values within the range."""
        if self.log:
            first = math.ceil(math.log10(self.low) - 1e-9)
            last = math.floor(math.log10(self.high) + 1e-9)
            decades = [10.0**power for power in range(first, last + 1, max(1, math.ceil((last - first) / (most - 1))))]
            if len(decades) > 1:
                return decades  # a range within one decade has linear ticks
        step = _round_step((self.high - self.low) / (most - 1))
        first = math.ceil(self.low / step - 1e-9)
        return [step * k for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis(values: Sequence[float], log: bool = False, margin: float = 0.06) -> Axis:
    """An axis that contains the finite `values` with a margin."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (0.1, 1.0)
    if log:
        factor = max((high / low) ** margin, 1.15)
        return Axis(low / factor, high * factor, True)
    room = margin * (high - low) or max(abs(high), 1e-6) * 0.1
    return Axis(low - room, high + room)


def tick_text(value: float) -> str:
    """A round value in few characters: 0.5, 20k, 3e6."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value:.2g}".replace("e+0", "e").replace("e+", "e")
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2g}".replace("e-0", "e-")


def _round_step(raw: float) -> float:
    """The next of 1, 2, 5 x a power of ten."""
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw * (1 - 1e-9))
