"""Each kind of collapse is forced by constructed latents and named; healthy runs are left alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from openjepa.core.seeding import generator_for
from openjepa.health.metrics import HealthSample, health
from openjepa.health.verdict import FEWEST_SAMPLES, RULES, judge

B, PER_ROW, D = 128, 6, 32


def normal(*shape: int, draw: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator_for(0, "test", draw))


def living(skill_noise: float = 0.7) -> HealthSample:
    """A working encoder: content in rows and positions, half of it predictable, a teacher close by."""
    rows, positions = torch.arange(B).repeat_interleave(PER_ROW), torch.arange(PER_ROW).repeat(B)
    context = normal(B, D)
    target = context[rows] + 0.3 * normal(PER_ROW, D, draw=1)[positions] + 0.8 * normal(B * PER_ROW, D, draw=2)
    predicted = target + skill_noise * normal(B * PER_ROW, D, draw=3)
    return HealthSample(
        predicted, target, context, rows, positions, target.roll(1, 0), context + 0.2 * normal(B, D, draw=4)
    )


START = health(living(skill_noise=3.0))


def with_(**changes: Tensor) -> HealthSample:
    return dataclasses.replace(living(), **changes)


def position_only() -> HealthSample:
    alive = living()
    target = normal(PER_ROW, D, draw=5)[alive.positions] + 0.1 * normal(B * PER_ROW, D, draw=6)
    pooled = target.view(B, PER_ROW, D).mean(1)
    return with_(target=target, predicted=normal(PER_ROW, D, draw=5)[alive.positions], embedding=pooled, teacher=pooled)


def token_uniform() -> HealthSample:
    alive = living()
    target = alive.embedding[alive.rows] + 0.05 * normal(B * PER_ROW, D, draw=5)
    return with_(target=target, predicted=target + 0.3 * normal(B * PER_ROW, D, draw=6))


def complete() -> HealthSample:
    one = normal(1, D, draw=5)
    return with_(
        embedding=one + 1e-3 * normal(B, D), teacher=one + 1e-3 * normal(B, D),
        target=one + 1e-3 * normal(B * PER_ROW, D), predicted=one + 1e-3 * normal(B * PER_ROW, D, draw=6),
    )  # fmt: skip


def dimensional() -> HealthSample:
    plane = torch.zeros(D, D)
    plane[0, 0] = 1
    alive = living()
    return with_(**{n: getattr(alive, n) @ plane for n in ("embedding", "teacher", "target", "predicted", "copied")})


def anisotropic() -> HealthSample:
    cone = 10 * torch.ones(D)
    alive = living()
    return with_(embedding=alive.embedding + cone, teacher=alive.embedding + cone)


def scaled(factor: float) -> HealthSample:
    alive = living()
    names = ("embedding", "teacher", "target", "predicted", "copied")
    return with_(**{n: factor * getattr(alive, n) for n in names})


def predictor_absorbed() -> HealthSample:
    one = normal(1, D, draw=5)
    return with_(embedding=one + 1e-3 * normal(B, D), teacher=one + 1e-3 * normal(B, D))


def non_finite() -> HealthSample:
    return with_(target=living().target * math.nan)


COLLAPSES = [complete, dimensional, anisotropic, token_uniform, position_only, predictor_absorbed, non_finite]


@pytest.mark.parametrize("make", COLLAPSES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("start", [START, None], ids=["start", "no start"])
def test_every_collapse_is_named_with_evidence_and_advice(make, start) -> None:
    verdict = judge(health(make()), start, 0.9)
    assert (verdict.status, verdict.kind) == ("collapsed", make.__name__.replace("_", "-"))
    assert any(c.isdigit() for c in verdict.evidence)
    assert verdict.advice
    assert "\n" not in verdict.evidence + verdict.advice


def test_a_norm_that_fell_from_68_to_06_is_a_collapse_of_scale_and_rank_does_not_show_it() -> None:
    now = health(scaled(0.6 / 6.8))
    assert now["rank"] == pytest.approx(START["rank"], rel=1e-5)
    verdict = judge(now, START, 0.9)
    assert (verdict.status, verdict.kind) == ("collapsed", "scale")
    assert "0.088 x" in verdict.evidence


@pytest.mark.parametrize(("factor", "status"), [(0.25, "at risk"), (200, "at risk"), (0.5, "healthy"), (8, "healthy")])
def test_smaller_changes_of_scale(factor: float, status: str) -> None:
    assert judge(health(scaled(factor)), START, 0.9).status == status


def test_a_cloud_that_shrinks_to_a_point_is_no_cone_and_one_that_moves_away_is_no_point() -> None:
    offset = 12 * torch.ones(D)
    small = dataclasses.replace(living(), embedding=0.05 * living().embedding + offset / 20)
    moved = dataclasses.replace(living(), embedding=living().embedding + offset)
    assert health(small)["spread"] == pytest.approx(health(moved)["spread"], rel=1e-3)
    assert judge(health(small), START, 0.9).kind == "predictor-absorbed"  # predictions live on
    assert judge(health(small) | {"predicted_std": 0.05}, START, 0.9).kind == "complete"
    assert judge(health(moved), START, 0.9).kind == "anisotropic"


def test_taking_a_common_offset_away_is_no_collapse_of_scale() -> None:
    offset = dataclasses.replace(living(), embedding=living().embedding + 30, teacher=living().embedding + 30)
    assert judge(health(living()), health(offset), 0.9).status == "healthy"


def test_healthy_latents_are_healthy_at_every_point_of_the_run() -> None:
    for fraction in (0.0, 0.05, 0.3, 1.0):
        verdict = judge(health(living()), START if fraction else None, fraction)
        assert (verdict.status, verdict.kind, verdict.advice) == ("healthy", None, "")
        assert "rank" in verdict.evidence


def test_not_learning_only_after_a_quarter_of_the_run() -> None:
    now = START | {"skill": 0.01}
    assert judge(now, START, 0.2).status == "healthy"
    verdict = judge(now, START, 0.3)
    assert (verdict.status, verdict.kind) == ("not learning", None)
    assert "0.010" in verdict.evidence
    assert judge(START | {"skill": 0.05}, START, 0.3).status == "healthy"


def test_a_teacher_left_behind_is_at_risk_and_the_cause_where_nothing_is_learned() -> None:
    lagging = health(with_(teacher=normal(B, D, draw=7)))
    assert (judge(lagging, START, 0.9).status, judge(lagging, START, 0.9).kind) == ("at risk", "teacher-lag")
    stuck = judge(lagging | {"skill": 0.0}, START, 0.9)
    assert (stuck.status, stuck.kind) == ("not learning", "teacher-lag")


@pytest.mark.parametrize("make", COLLAPSES[:-1], ids=lambda f: f.__name__)
def test_early_in_a_run_no_fall_is_called_a_collapse(make) -> None:
    assert judge(health(make()), START, 0.05).status in ("healthy", "at risk")


@pytest.mark.parametrize("make", [dimensional, anisotropic, token_uniform, position_only], ids=lambda f: f.__name__)
def test_an_encoder_that_starts_that_way_is_not_alarmed_at_step_0(make) -> None:
    assert judge(health(make()), None, 0.0).status == "healthy"


def test_an_encoder_that_keeps_its_start_is_not_said_to_have_collapsed() -> None:
    narrow = health(anisotropic())
    assert judge(narrow, narrow, 0.9).status == "healthy"
    flat = health(dimensional())
    assert (judge(flat, flat, 0.9).status, judge(flat, flat, 0.9).kind) == ("at risk", "dimensional")


def test_nan_is_a_collapse_from_the_first_step_on() -> None:
    assert judge(health(non_finite()), None, 0.0).kind == "non-finite"


def test_missing_metrics_fire_no_rule() -> None:
    assert judge({}, None, 1.0).status == "healthy"
    assert judge({"skill": 0.5, "rank": 3.0}, {}, 1.0).status == "healthy"


def test_rules_are_ordered_by_severity_and_every_one_says_what_it_means() -> None:
    order = [("collapsed", "not learning", "at risk").index(rule.status) for rule in RULES]
    assert order == sorted(order)
    assert all(rule.meaning for rule in RULES)


FULL = {
    "train.lr": 1e-3, "train.steps": 1000, "train.health_samples": 256, "data.eval_fraction": 0.05,
    "regularizer.name": "none", "regularizer.weight": 0.01, "regularizer.covariance": 0.04, "regularizer.mean": 0.0,
    "momentum.start": 0.5, "momentum.final": 0.6, "target.norm": "none",
}  # fmt: skip
BARE = {"train.lr": 1e-3, "train.steps": 1000}  # a recipe of one's own


def few(samples: int) -> dict[str, float]:
    return health(dataclasses.replace(complete(), embedding=complete().embedding[:samples], teacher=None))


@pytest.mark.parametrize("samples", [1, 4, FEWEST_SAMPLES - 1])
def test_fewer_than_32_samples_give_no_verdict_but_what_to_set(samples: int) -> None:
    verdict = judge(few(samples), START, 0.9, FULL)
    assert (verdict.status, verdict.kind, verdict.advice) == ("not judged", None, "")
    assert verdict.evidence == (
        f"{samples} of the 32 held-out samples that a verdict needs: "
        "raise data.eval_fraction (now 0.05) or give more data"
    )
    assert judge(few(FEWEST_SAMPLES), START, 0.9, FULL).status == "collapsed"


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({**FULL, "train.health_samples": 8}, "set train.health_samples (now 8) to 32 or more"),
        ({**FULL, "data.eval_source": "held.jsonl"}, "put more into data.eval_source"),
        (
            {**FULL, "data.streaming": True, "data.documents": 0, "data.eval_documents": 9},
            "data.eval_documents (now 9)",
        ),
        (BARE, "hold out more data"),
    ],
)
def test_what_to_set_for_more_samples_is_what_the_run_has(settings: dict, hint: str) -> None:
    assert hint in judge(few(8), START, 0.9, settings).evidence


def test_infinite_latents_are_told_of_however_few() -> None:
    latents = dataclasses.replace(non_finite(), embedding=living().embedding[:4], teacher=None)
    assert judge(health(latents), START, 0.9, FULL).kind == "non-finite"


@pytest.mark.parametrize("make", COLLAPSES, ids=lambda f: f.__name__)
def test_advice_names_settings_of_the_run_and_no_others(make) -> None:
    full, bare = (judge(health(make()), START, 0.9, settings).advice for settings in (FULL, BARE))
    assert "train.lr" in bare
    for part in ("momentum", "teacher", "regulari", "target.norm"):
        assert part not in bare
    named = [word for word in full.replace(",", " ").replace(":", " ").split() if "." in word and word[0].isalpha()]
    assert named
    assert set(named) <= set(FULL)


def test_a_run_without_a_teacher_is_not_told_of_momentum() -> None:
    now = health(complete())
    assert "raise momentum.start from 0.5 to 0.986" in judge(now, START, 0.9, FULL).advice
    del now["teacher_distance"]
    advice = judge(now, START, 0.9, FULL).advice
    assert "momentum" not in advice
    assert "set regularizer.name to vicreg (now none)" in advice


@pytest.mark.parametrize(("momentum", "word"), [(0.5, "raise"), (1.0, "lower")])
def test_a_collapse_beside_a_lagging_teacher_is_one_advice_in_the_direction_that_is_right(momentum, word) -> None:
    settings = {**FULL, "momentum.start": momentum, "momentum.final": momentum}
    now = health(complete()) | {"teacher_distance": 0.9}
    verdict = judge(now, START, 0.9, settings)
    assert (verdict.kind, verdict.also) == ("complete", ("teacher-lag",))
    assert "; teacher and student are 0.90 apart" in verdict.evidence
    assert f"{word} momentum.start from {momentum:g} to 0.986" in verdict.advice
    assert verdict.advice.count("momentum.start") == 1


def test_few_dimensions_and_shrinking_latents_are_one_advice() -> None:
    settings = {**FULL, "regularizer.name": "vicreg", "regularizer.covariance": 30.0, "regularizer.mean": 1.0}
    now = health(dimensional()) | {"scale": 0.2 * START["scale"], "std": 0.2 * START["std"]}
    verdict = judge(now, START, 0.9, settings)
    assert (verdict.kind, verdict.also) == ("dimensional", ("scale",))
    assert "lower regularizer.covariance from 30 to 1," in verdict.advice  # alone, the first would be content with 25
    assert verdict.advice.count("regularizer.covariance") == 1
    alone = judge(now | {"scale": START["scale"], "std": START["std"]}, START, 0.9, settings)
    assert alone.also == ()
    assert "lower regularizer.covariance from 30 to 25" in alone.advice
