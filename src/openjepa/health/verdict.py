"""From metrics to a verdict: healthy, at risk, collapsed, not learning or not judged, with advice if unhealthy.

RULES below is the whole decision, read from top to bottom: the first rule that fires is the verdict. Its order matters.
Kinds that resemble another kind come before it: latents that encode only their position make equal embeddings, and
would be taken for complete collapse; varied predictions hide a collapsed encoder. Collapses come before runs that do
not learn, and those before risks.

Most limits are both absolute and relative to step 0. Encoders differ at initialisation (pretrained ones are
anisotropic, image ones encode position), which is no collapse. In the first tenth of a run, where every JEPA dips, a
collapse only counts as a risk and no other rule applies. The limits, with their reasons, are in `health.signs`; the
settings that a kind's advice changes in a given run are in `health.treatment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openjepa.health import signs
from openjepa.health.signs import CheckMetrics, Evidence
from openjepa.health.treatment import in_words, treat

Status = Literal["healthy", "at risk", "collapsed", "not learning", "not judged"]
FEWEST_SAMPLES = 32  # held-out embeddings; with fewer, rank and spread depend more on their number than on the encoder
TEACHER_HELD_BACK = ("position-only", "predictor-absorbed", "complete", "token-uniform")
OPPOSED = {  # kind -> kinds whose remedies move the same setting the other way: momentum, or the regulariser's balance
    **dict.fromkeys(TEACHER_HELD_BACK, ("teacher-lag",)),
    "dimensional": ("scale",),
    "scale": ("dimensional",),
}


@dataclass(frozen=True)
class Verdict:
    """A verdict. `evidence` and `advice` are one line each."""

    status: Status
    kind: str | None = None
    evidence: str = ""
    advice: str = ""
    also: tuple[str, ...] = ()  # further kinds, whose remedies are opposed to that of `kind`


@dataclass(frozen=True)
class Rule:
    """One row of the table: status, kind, evidence and meaning."""

    status: Status
    kind: str | None
    evidence: Evidence
    meaning: str


def judge(
    now: Mapping[str, float],
    start: Mapping[str, float] | None,
    progress_fraction: float,
    settings: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on metrics `now` (of `metrics.health`), given those of step 0 and the finished part of the run.

    `settings` (`core.describe.settings_in_use`) are needed for advice; without them the kind is only named.
    """
    reading = CheckMetrics(now, start or {}, progress_fraction)
    if "samples" in now and now["samples"] < FEWEST_SAMPLES and not signs.non_finite(reading):
        return Verdict("not judged", evidence=too_few(int(now["samples"]), settings or {}))
    for rule in RULES:
        early = reading.early and rule.kind != "non-finite"
        if early and rule.status != "collapsed":
            continue
        if (evidence := rule.evidence(reading)) is not None:
            status = "at risk" if early else rule.status
            opposed = {} if early else _opposed(rule.kind, reading)
            advice = _advice(rule, settings, now, [*opposed])
            return Verdict(status, rule.kind, "; ".join([evidence, *opposed.values()]), advice, tuple(opposed))
    return Verdict("healthy", evidence=signs.summary(reading))


def too_few(samples: int, settings: Mapping[str, Any]) -> str:
    """A line with the number of held-out samples and the setting that gives more of them."""
    wanted = settings.get("train.health_samples", FEWEST_SAMPLES)
    share = settings.get("data.eval_fraction")
    if wanted < FEWEST_SAMPLES:
        more = f"set train.health_samples (now {wanted}) to {FEWEST_SAMPLES} or more"
    elif settings.get("data.eval_source"):
        more = "put more into data.eval_source"
    elif settings.get("data.streaming") and not settings.get("data.documents"):
        more = f"raise data.eval_documents (now {settings.get('data.eval_documents')})"
    elif share is not None:
        more = f"raise data.eval_fraction (now {share:g}) or give more data"
    else:
        more = "hold out more data"
    return f"{samples} of the {FEWEST_SAMPLES} held-out samples that a verdict needs: {more}"


def _opposed(kind: str | None, reading: CheckMetrics) -> dict[str, str]:
    """Evidence, by kind, of further kinds whose remedies are opposed to that of `kind`."""
    found: dict[str, str] = {}
    for rule in RULES:
        if rule.kind in OPPOSED.get(kind or "", ()) and rule.kind not in found:
            evidence = rule.evidence(reading)
            if evidence is not None:
                found[rule.kind] = evidence
    return found


def _advice(rule: Rule, settings: Mapping[str, Any] | None, now: Mapping[str, float], also: Sequence[str]) -> str:
    if settings is None:
        return f"{rule.meaning}."
    return f"{rule.meaning}: {in_words(treat(rule.kind, settings, now, also), settings)}."


LAGS = "The teacher does not follow its student"

# fmt: off
RULES: tuple[Rule, ...] = (
    Rule("collapsed", "non-finite", signs.non_finite,
         "The numbers overflow"),
    Rule("collapsed", "position-only", signs.position_only(signs.POSITION_COLLAPSED),
         "Latents encode position, not content"),
    Rule("collapsed", "predictor-absorbed", signs.predictor_absorbed,
         "The predictions vary, the encoder's own output does not"),
    Rule("collapsed", "complete", signs.complete,
         "Different inputs have the same latents"),
    Rule("collapsed", "token-uniform", signs.token_uniform(signs.WITHIN_ROW_COLLAPSED),
         "All parts of an input have the same latent"),
    Rule("collapsed", "scale", signs.shrunk(signs.SCALE_COLLAPSED),
         "The loss falls because latents shrink"),
    Rule("collapsed", "dimensional", signs.dimensional(signs.RANK_COLLAPSED, signs.RANK_FEWEST_COLLAPSED),
         "The encoder's output varies in too few dimensions"),
    Rule("collapsed", "anisotropic", signs.anisotropic(signs.CONE_COLLAPSED),
         "All embeddings share one direction"),
    Rule("not learning", "teacher-lag", signs.both(signs.no_skill, signs.teacher_lag), LAGS),
    Rule("not learning", None, signs.no_skill,
         "Nothing is learned yet (see that `openjepa check` passes)"),
    Rule("at risk", "teacher-lag", signs.teacher_lag, LAGS),
    Rule("at risk", "position-only", signs.position_only(signs.POSITION_AT_RISK),
         "Targets mostly encode position"),
    Rule("at risk", "token-uniform", signs.token_uniform(signs.WITHIN_ROW_AT_RISK),
         "The parts of an input become similar"),
    Rule("at risk", "scale", signs.shrunk(signs.SCALE_AT_RISK),
         "Latents shrink"),
    Rule("at risk", "scale", signs.exploded,
         "Latents grow without bound"),
    Rule("at risk", "dimensional", signs.dimensional(signs.RANK_AT_RISK, signs.RANK_FEWEST_AT_RISK),
         "Few dimensions are in use"),
    Rule("at risk", "dimensional", signs.never_unfolded,
         "The encoder has used few dimensions from the start"),
    Rule("at risk", "anisotropic", signs.anisotropic(signs.CONE_AT_RISK),
         "Embeddings drift into a cone"),
)
# fmt: on
