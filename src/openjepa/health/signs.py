"""The signs of collapse: functions of the metrics of one health check that return a line of evidence, or None.

Limits are constants with their reasons; where a limit is relative, it is relative to step 0 of the same run. A metric
that is missing (not every method has positions, rows or a teacher) or not finite gives no sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

EARLY_FRAC = 0.1  # of the run: warm-up and the first dip of rank and spread are over by then
LEARNED_BY_FRAC = 0.25  # of the run: predictions no better than a constant are then no slow start
SKILL_FLOOR = 0.02  # R^2: above the sampling noise of some hundred held-out latents
SPREAD_DEAD = 1e-4  # variance share: pairwise cosine 0.9999, below what averaging over a long random input leaves
SPREAD_FALLEN = 1e-2  # dead as well if below this and a tenth of step 0, and if the std has fallen
# of the targets' variance
POSITION_COLLAPSED = 0.9
POSITION_AT_RISK = 0.75
POSITION_SKILL = 0.1  # R^2 beyond the position-wise mean that is evidence of content
# of the targets' variance; rows drawn at random have 1
WITHIN_ROW_COLLAPSED = 0.02
WITHIN_ROW_AT_RISK = 0.05
# of step 0, norm and std alike; 6.8 -> 0.6 is 0.09, and looked healthy
SCALE_COLLAPSED = 0.1
SCALE_AT_RISK = 0.3
SCALE_EXPLODED = 100.0  # times step 0; a variance hinge may rightly lift small outputs tenfold
# of min(N, D): rank 6 of 256 is 0.023; working small runs had 0.09 and more
RANK_COLLAPSED = 0.03
RANK_AT_RISK = 0.1
# dimensions, where min(N, D) is small
RANK_FEWEST_COLLAPSED = 1.5
RANK_FEWEST_AT_RISK = 2.5
RANK_LEAST_CAP = 8  # below this many samples or dimensions a rank means nothing
# 1 - mean cosine: unrelated inputs at cosine 0.98 and 0.9
CONE_COLLAPSED = 0.02
CONE_AT_RISK = 0.1
FALLEN = 0.5  # of the value at step 0: below it, a metric has fallen
PREDICTOR_ALIVE_RANK = 0.25  # of the cap: predictions so varied on a collapsed encoder come from the predictor
PREDICTOR_ALIVE_STD = 0.1  # normalised targets have a std of 1, and variance hinges aim at it
TEACHER_FAR = 0.5  # half-way to unrelated; in 160 steps of T-JEPA an EMA from 0.99 kept 0.25, a frozen one reached 0.64


@dataclass(frozen=True)
class CheckMetrics:
    """Metrics now and at step 0. A metric that is missing or NaN reads as None, and fires no rule."""

    now: Mapping[str, float]
    start: Mapping[str, float]
    fraction: float

    def __call__(self, name: str) -> float | None:
        return _number(self.now.get(name))

    def at_start(self, name: str) -> float | None:
        return _number(self.start.get(name))

    @property
    def early(self) -> bool:
        return self.fraction < EARLY_FRAC

    def fell(self, name: str) -> bool:
        """Whether it is below half of step 0. Without a value at step 0: true, but not early in a run."""
        now = self(name)
        start = self.at_start(name)
        return now is not None and (not self.early if start is None else now < FALLEN * start)

    def ratio(self, name: str) -> float | None:
        """Value relative to step 0."""
        now = self(name)
        start = self.at_start(name)
        return now / start if now is not None and start else None


Evidence = Callable[[CheckMetrics], str | None]


def non_finite(m: CheckMetrics) -> str | None:
    """NaN or infinity anywhere."""
    share = m("nonfinite")
    return f"{share:.1%} of the latents are NaN or infinite" if share else None


def position_only(limit: float) -> Evidence:
    """Position explains more than `limit` of the targets, and predictions have no skill beyond it."""

    def evidence(m: CheckMetrics) -> str | None:
        share = m("position_share")
        beyond = m("skill_position")
        if m.early or share is None or share <= limit or (beyond is not None and beyond > POSITION_SKILL):
            return None
        shown = "" if beyond is None else f", skill beyond it {beyond:.2f}"
        return f"{share:.0%} of the targets' variance is explained by position alone (limit {limit:.0%}){shown}"

    return evidence


def _spread_limit(m: CheckMetrics, of: str) -> float:
    """The relative limit applies if the std has fallen; latents that keep their std while the mean grows are a cone."""
    shrunk = m.at_start(f"{of}std") is not None and m.fell(f"{of}std")
    return max(SPREAD_DEAD, min(SPREAD_FALLEN, 0.1 * (m.at_start(f"{of}spread") or 0.0))) if shrunk else SPREAD_DEAD


def _dead_spread(m: CheckMetrics, of: str = "") -> bool:
    value = m(f"{of}spread")
    return value is not None and value < _spread_limit(m, of)


def _low_rank(m: CheckMetrics, share: float, fewest: float) -> bool:
    rank = m("rank")
    cap = m("rank_cap")
    if rank is None or cap is None or cap < RANK_LEAST_CAP:
        return False
    return rank < max(share * cap, fewest)


def predictor_absorbed(m: CheckMetrics) -> str | None:
    """Predictions are varied, the encoder's embeddings have collapsed or lost their rank."""
    rank = m("predicted_rank_frac")
    std = m("predicted_std")
    low_rank = _low_rank(m, RANK_COLLAPSED, RANK_FEWEST_COLLAPSED) and m.fell("rank_frac")
    dead = "spread" if _dead_spread(m) else "rank" if low_rank else None
    if dead is None or rank is None or std is None or rank < PREDICTOR_ALIVE_RANK or std < PREDICTOR_ALIVE_STD:
        return None
    encoder = f"spread {m('spread'):.1e}" if dead == "spread" else _rank_text(m)
    return (
        f"predictions use {rank:.0%} of their dimensions (alive above {PREDICTOR_ALIVE_RANK:.0%}), "
        f"the encoder has {encoder}{_from_start(m, dead)}"
    )


def complete(m: CheckMetrics) -> str | None:
    """All embeddings, or all targets, are nearly equal."""
    for of, what in (("", "embeddings"), ("target_", "targets")):
        if _dead_spread(m, of):
            start = _from_start(m, f"{of}spread")
            limit = _spread_limit(m, of)
            return f"{what} are nearly equal: spread {m(f'{of}spread'):.1e}{start}, limit {limit:.1g}"
    return None


def token_uniform(limit: float) -> Evidence:
    """Variance within rows is below `limit` of the total, and below half of its share at step 0."""

    def evidence(m: CheckMetrics) -> str | None:
        share = m("within_row_share")
        if share is None or share >= limit or not m.fell("within_row_share"):
            return None
        start = _from_start(m, "within_row_share")
        return f"{share:.1%} of the targets' variance lies within rows{start}, limit {limit:.0%}"

    return evidence


def shrunk(limit: float) -> Evidence:
    """Norm and std both below `limit` of step 0: a removed mean does not count."""

    def evidence(m: CheckMetrics) -> str | None:
        norm = m.ratio("scale")
        std = m.ratio("std")
        if norm is None or norm >= limit or (std is not None and std >= limit):
            return None
        return f"mean norm {m('scale'):.3g} is {norm:.2g} x that of step 0 (limit {limit})"

    return evidence


def exploded(m: CheckMetrics) -> str | None:
    """Norm far above step 0."""
    norm = m.ratio("scale")
    if norm is None or norm <= SCALE_EXPLODED:
        return None
    return f"mean norm {m('scale'):.3g} is {norm:.3g} x that of step 0 (limit {SCALE_EXPLODED:g})"


def dimensional(share: float, fewest: float) -> Evidence:
    """Rank below `share` of its cap and below half of step 0."""

    def evidence(m: CheckMetrics) -> str | None:
        if not (_low_rank(m, share, fewest) and m.fell("rank_frac")):
            return None
        return f"{_rank_text(m)}{_from_start(m, 'rank')}, limit {max(share * m.now['rank_cap'], fewest):.1f}"

    return evidence


def never_unfolded(m: CheckMetrics) -> str | None:
    """Rank as low as in a collapse since step 0."""
    if m.fraction < LEARNED_BY_FRAC or not _low_rank(m, RANK_COLLAPSED, RANK_FEWEST_COLLAPSED):
        return None
    return f"{_rank_text(m)}{_from_start(m, 'rank')} after {m.fraction:.0%} of the run"


def anisotropic(limit: float) -> Evidence:
    """1 - mean cosine below `limit` and below half of step 0."""

    def evidence(m: CheckMetrics) -> str | None:
        now = m("mean_cosine")
        start = m.at_start("mean_cosine")
        if now is None or 1 - now >= limit or (m.early if start is None else 1 - now >= FALLEN * (1 - start)):
            return None
        return f"unrelated inputs have mean cosine {now:.3f}{_from_start(m, 'mean_cosine')}, limit {1 - limit:.2f}"

    return evidence


def no_skill(m: CheckMetrics) -> str | None:
    """Predictions no better than a constant after a quarter of the run."""
    skill = m("skill")
    if skill is None or skill > SKILL_FLOOR or m.fraction <= LEARNED_BY_FRAC:
        return None
    return f"skill {skill:.3f} after {m.fraction:.0%} of the run: no better than a constant (limit {SKILL_FLOOR})"


def teacher_lag(m: CheckMetrics) -> str | None:
    """The teacher is far from its student after a quarter of the run."""
    distance = m("teacher_distance")
    if distance is None or distance <= TEACHER_FAR or m.fraction < LEARNED_BY_FRAC:
        return None
    return f"teacher and student are {distance:.2f} apart (0 = equal, 1 = unrelated, limit {TEACHER_FAR})"


def both(first: Evidence, second: Evidence) -> Evidence:
    """Two signs at once."""

    def evidence(m: CheckMetrics) -> str | None:
        a = first(m)
        b = second(m)
        return f"{a}; {b}" if a and b else None

    return evidence


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _rank_text(m: CheckMetrics) -> str:
    return f"rank {m('rank'):.1f} of {m('rank_cap'):.0f}"


def _from_start(m: CheckMetrics, name: str) -> str:
    start = m.at_start(name)
    return "" if start is None else f" ({start:.2g} at step 0)"


def summary(m: CheckMetrics) -> str:
    """Summarise a healthy check in one line."""
    shown = {"skill": "skill", "spread": "spread", "mean_cosine": "mean cosine"}
    parts = [f"{label} {value:.2f}" for name, label in shown.items() if (value := m(name)) is not None]
    if m("rank") is not None and m("rank_cap") is not None:
        parts.insert(1, _rank_text(m))
    if (ratio := m.ratio("scale")) is not None:
        parts.append(f"scale {ratio:.2g} x step 0")
    return ", ".join(parts)
