"""Remedies for an unhealthy run: a patch of its configuration, from its kind of collapse.

A remedy is a list of changes, each a small function of the run's settings. It returns nothing where the recipe has no
such key, or where the run has that value already, so a patch holds only new values. If nothing else changes, the
learning rate does: every recipe has one. The advice in words (`in_words`) is made from the patch, so the two never
disagree. `benchmarks/heal_collapses.py` measures how often each remedy works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Settings = Mapping[str, Any]  # dotted key -> value of the settings in use (`core.describe.settings_in_use`)
Change = Callable[[Settings], dict[str, Any]]

HIGHEST_LR = 3e-3  # of AdamW, for encoders from scratch; after a collapse above it, the rate is lowered first
ADAMS = ("adamw", "muon")  # to which HIGHEST_LR applies
TEACHER_PART = 0.05  # of the run: half-life of a teacher that neither lags nor follows too fast
TEACHER_PART_MOST = 0.2  # of the run: half-life at its end


def treat(
    kind: str | None, settings: Settings, metrics: Mapping[str, Any] | None = None, also: Sequence[str | None] = ()
) -> dict[str, Any]:
    """Dotted keys of `settings` with other values, never empty; `kind` is that of an unhealthy verdict.

    `also` are further kinds, treated by the same patch. `metrics` of the run show whether it has a teacher.
    """
    if metrics is not None and "teacher_distance" not in metrics:
        settings = {key: value for key, value in settings.items() if not key.startswith("momentum.")}
    patch: dict[str, Any] = {}
    for change in (change for one in (kind, *also) for change in REMEDIES.get(one, REMEDIES[None])):
        patch |= change({**settings, **patch})
    patch = {key: value for key, value in patch.items() if value != settings.get(key)}
    return patch or slower(settings)


def in_words(patch: Mapping[str, Any], settings: Settings) -> str:
    """A patch as a clause: "raise regularizer.weight from 0.01 to 1, set target.norm to standardize (now none)"."""
    return ", ".join(_in_words(key, settings.get(key), value) for key, value in patch.items())


def _in_words(key: str, before: Any, after: Any) -> str:
    if isinstance(after, bool) or not isinstance(after, int | float) or not isinstance(before, int | float):
        shown, now = (str(value).lower() if isinstance(value, bool) else value for value in (after, before))
        return f"set {key} to {shown} (now {now})"
    return f"{'raise' if after > before else 'lower'} {key} from {before:.6g} to {after:.6g}"


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
    third = float(f"{settings['train.lr'] / 3:.2g}")
    return {"train.lr": min(HIGHEST_LR, third) if _of_adam(settings) else third}


def calm(settings: Settings) -> dict[str, Any]:
    """A learning rate no higher than HIGHEST_LR, where the optimiser is one of ADAMS."""
    return at_most("train.lr", HIGHEST_LR)(settings) if _of_adam(settings) else {}


def _of_adam(settings: Settings) -> bool:
    return settings.get("train.optimizer", "adamw") in ADAMS


def of_vicreg(change: Change) -> Change:
    """A change of a key that only VICReg reads."""
    return lambda settings: change(settings) if settings.get("regularizer.name") == "vicreg" else {}


def of_some(change: Change) -> Change:
    """A change of a key that every regulariser reads, where there is one."""
    return lambda settings: change(settings) if settings.get("regularizer.name", "none") != "none" else {}


def guard(settings: Settings) -> dict[str, Any]:
    """VICReg where there is no regulariser."""
    return {"regularizer.name": "vicreg"} if settings.get("regularizer.name") == "none" else {}


def steady_teacher(settings: Settings) -> dict[str, Any]:
    """An average over a twentieth of the run, up to a fifth of it at the end, whatever its length."""
    if "momentum.start" not in settings:
        return {}
    steps = settings["train.steps"]
    start, final = (_momentum(max(1.0, part * steps)) for part in (TEACHER_PART, TEACHER_PART_MOST))
    return put("momentum.start", start)(settings) | put("momentum.final", final)(settings)


def _momentum(half_life: float) -> float:
    """The momentum m of an EMA with this half-life in steps, to two digits of 1 - m."""
    return round(1 - float(f"{1 - math.exp(-math.log(2) / half_life):.2g}"), 8)


BALANCED = (
    of_vicreg(at_least("regularizer.covariance", 1.0)),
    of_vicreg(at_most("regularizer.covariance", 25.0)),
)
CENTRED = of_vicreg(at_least("regularizer.mean", 0.3))  # else latents of high variance drift into a cone
STRONG = of_some(at_least("regularizer.weight", 1.0))
KEEP_APART = (guard, STRONG, *BALANCED, CENTRED, calm)
STANDARDIZED = put("target.norm", "standardize")

REMEDIES: dict[str | None, tuple[Change, ...]] = {
    "non-finite": (put("train.precision", "32-true"), slower),
    "complete": (*KEEP_APART, STANDARDIZED, steady_teacher),
    "dimensional": KEEP_APART,
    "anisotropic": (put("regularizer.name", "sigreg"), STRONG, calm),
    "token-uniform": (STANDARDIZED, steady_teacher, calm),
    "position-only": (*KEEP_APART, steady_teacher),
    "scale": (
        guard,
        STANDARDIZED,
        of_vicreg(at_most("regularizer.covariance", 1.0)),
        of_vicreg(at_most("regularizer.mean", 0.3)),
        slower,
    ),
    "predictor-absorbed": (*KEEP_APART, steady_teacher),
    "teacher-lag": (steady_teacher, calm),
    None: (STANDARDIZED, slower),
}
