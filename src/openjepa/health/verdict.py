"""From metrics to a verdict: healthy, at risk, collapsed or not learning; if unhealthy, which kind and what helps.

RULES below is the whole decision, read from top to bottom: the first rule that fires is the verdict. Its order is the
argument. Kinds that look like another kind come before it: latents that know only their position make equal
embeddings, and so would pass for complete collapse; a predictor that carries all variety hides that its encoder is
dead. What has collapsed comes before what does not learn, and that before what is merely at risk.

Most limits are both absolute and relative to step 0. Encoders differ (pretrained ones start anisotropic, image ones
start position-bound), and a start is no collapse. In the first tenth of a run, where every JEPA dips, a collapse only
counts as a risk and nothing else is said. The limits, with their reasons, are in `health.signs`; what a kind's advice
means for the settings of a given run is in `health.treatment`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from openjepa.health import signs
from openjepa.health.signs import Evidence, Reading

Status = Literal["healthy", "at risk", "collapsed", "not learning"]


@dataclass(frozen=True)
class Verdict:
    """One judgement. `evidence` and `advice` are one line each."""

    status: Status
    kind: str | None = None
    evidence: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Rule:
    """One row of the table: what to call it, when, and what helps."""

    status: Status
    kind: str | None
    evidence: Evidence
    advice: str


def judge(now: Mapping[str, float], start: Mapping[str, float] | None, progress_fraction: float) -> Verdict:
    """The verdict on metrics `now` (of `metrics.health`), given those of step 0 and the done part of the run."""
    reading = Reading(now, start or {}, progress_fraction)
    for rule in RULES:
        early = reading.early and rule.kind != "non-finite"
        if early and rule.status != "collapsed":
            continue
        if (evidence := rule.evidence(reading)) is not None:
            status = "at risk" if early else rule.status
            return Verdict(status, rule.kind, evidence, rule.advice)
    return Verdict("healthy", evidence=signs.summary(reading))


LAGS = "The teacher does not follow: lower its momentum, or train.lr if the student runs away."

# fmt: off
RULES: tuple[Rule, ...] = (
    Rule("collapsed", "non-finite", signs.non_finite,
         "Lower the learning rate, or train in fp32."),
    Rule("collapsed", "position-only", signs.position_only(signs.POSITION_COLLAPSED),
         "Latents tell where they are, not what is there: keep the embeddings of different inputs apart."),
    Rule("collapsed", "predictor-absorbed", signs.predictor_absorbed,
         "Regularise the encoder's own output, not the predictor's, and make the predictor smaller."),
    Rule("collapsed", "complete", signs.complete,
         "Add a variance regulariser on the encoder's output and slow the teacher."),
    Rule("collapsed", "token-uniform", signs.token_uniform(signs.WITHIN_ROW_COLLAPSED),
         "All parts of an input have one latent: slow the teacher and lower the rate, so that content can win."),
    Rule("collapsed", "scale", signs.shrunk(signs.SCALE_COLLAPSED),
         "The loss is paid in shrinking latents: normalise the targets or hold the variance."),
    Rule("collapsed", "dimensional", signs.dimensional(signs.RANK_COLLAPSED, signs.RANK_FEWEST_COLLAPSED),
         "Decorrelate the encoder's output."),
    Rule("collapsed", "anisotropic", signs.anisotropic(signs.CONE_COLLAPSED),
         "All embeddings share one direction, which VICReg ignores: pull them to N(0, I)."),
    Rule("not learning", "teacher-lag", signs.both(signs.no_skill, signs.teacher_lag), LAGS),
    Rule("not learning", None, signs.no_skill,
         "Run `openjepa check`, then try another learning rate, or targets standardized over the batch."),
    Rule("at risk", "teacher-lag", signs.teacher_lag, LAGS),
    Rule("at risk", "position-only", signs.position_only(signs.POSITION_AT_RISK),
         "Most of the targets is position: keep the embeddings of different inputs apart."),
    Rule("at risk", "token-uniform", signs.token_uniform(signs.WITHIN_ROW_AT_RISK),
         "The parts of an input grow alike: slow the teacher."),
    Rule("at risk", "scale", signs.shrunk(signs.SCALE_AT_RISK),
         "Latents shrink: normalise the targets or hold the variance."),
    Rule("at risk", "scale", signs.exploded,
         "Latents grow without end: lower the learning rate."),
    Rule("at risk", "dimensional", signs.dimensional(signs.RANK_AT_RISK, signs.RANK_FEWEST_AT_RISK),
         "Few dimensions are in use: decorrelate the encoder's output."),
    Rule("at risk", "dimensional", signs.never_unfolded,
         "The encoder has used few dimensions from the start: decorrelate its output."),
    Rule("at risk", "anisotropic", signs.anisotropic(signs.CONE_AT_RISK),
         "Embeddings drift into a cone: pull them to N(0, I)."),
)
# fmt: on
