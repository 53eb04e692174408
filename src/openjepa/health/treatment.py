"""What to change in a run that is not well: a patch of its own configuration, from its kind of collapse.

A remedy is a list of changes, each a small function of the run's settings. It says nothing where the recipe has no such
key, and nothing where the run has that value already, so a patch holds only what is new to the run. If nothing is left
to change, the learning rate is: every recipe has one. How often each remedy heals is measured by
`benchmarks/heal_collapses.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Settings = Mapping[str, Any]  # dotted key -> value, as a run has them
Change = Callable[[Settings], dict[str, Any]]

HIGHEST_LR = 3e-3  # of AdamW, for encoders that start from scratch; where one collapsed above it, that comes first
TEACHER_PART = 0.05  # of the run: half-life of a teacher that neither lags behind nor gives way to its student
TEACHER_PART_MOST = 0.2  # of the run: half-life at its end


def treat(kind: str | None, settings: Settings) -> dict[str, Any]:
    """Dotted keys of `settings` with other values, never empty; `kind` is that of a verdict that is not healthy."""
    patch: dict[str, Any] = {}
    for change in REMEDIES[kind]:
        patch |= change({**settings, **patch})
    return patch or slower(settings)


def put(key: str, value: Any) -> Change:
    """`key` = `value`."""
    return lambda settings: {key: value} if settings.get(key, value) != value else {}


def at_most(key: str, limit: float) -> Change:
    """`key` no higher than `limit`."""
    return lambda settings: {key: limit} if settings.get(key, limit) > limit else {}


def at_least(key: str, limit: float) -> Change:
    """`key` no lower than `limit`."""
    return lambda settings: {key: limit} if settings.get(key, limit) < limit else {}


def slower(settings: Settings) -> dict[str, Any]:
    """A third of the learning rate, or HIGHEST_LR if that is lower."""
    return {"train.lr": min(HIGHEST_LR, float(f"{settings['train.lr'] / 3:.2g}"))}


def guard(settings: Settings) -> dict[str, Any]:
    """Some regulariser where there is none; one that the run has is kept."""
    return {"regularizer.name": "vicreg"} if settings.get("regularizer.name") == "none" else {}


def steady_teacher(settings: Settings) -> dict[str, Any]:
    """An average over a twentieth of the run, up to a fifth of it at the end, whatever its length."""
    if "momentum.start" not in settings:
        return {}
    steps = settings["train.steps"]
    start, final = (_momentum(max(1.0, part * steps)) for part in (TEACHER_PART, TEACHER_PART_MOST))
    return put("momentum.start", start)(settings) | put("momentum.final", final)(settings)


def _momentum(half_life: float) -> float:
    """Of an average that has replaced half of itself after so many steps, to two digits of 1 - m."""
    return round(1 - float(f"{1 - math.exp(-math.log(2) / half_life):.2g}"), 8)


CALM = at_most("train.lr", HIGHEST_LR)
BALANCED = (at_least("regularizer.covariance", 1.0), at_most("regularizer.covariance", 25.0))
CENTRED = at_least("regularizer.mean", 0.3)  # else latents that were kept apart drift into a cone together
KEEP_APART = (guard, at_least("regularizer.weight", 1.0), *BALANCED, CENTRED, CALM)
STANDARDIZED = put("target.norm", "standardize")

REMEDIES: dict[str | None, tuple[Change, ...]] = {
    "non-finite": (put("train.precision", "32-true"), slower),
    "complete": (*KEEP_APART, STANDARDIZED, steady_teacher),
    "dimensional": KEEP_APART,
    "anisotropic": (put("regularizer.name", "sigreg"), at_least("regularizer.weight", 1.0), CALM),
    "token-uniform": (STANDARDIZED, put("predictor.bottleneck", False), steady_teacher, CALM),
    "position-only": (*KEEP_APART, steady_teacher),
    "scale": (
        guard, STANDARDIZED, at_most("regularizer.covariance", 1.0), at_most("regularizer.mean", 0.3), slower,
    ),
    "predictor-absorbed": (*KEEP_APART, steady_teacher),
    "teacher-lag": (steady_teacher, CALM),
    None: (STANDARDIZED, slower),
}  # fmt: skip
