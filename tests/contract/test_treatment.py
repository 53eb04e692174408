"""Advice is a patch that the recipe of the run takes: for every recipe, preset and kind, well set or badly."""

from __future__ import annotations

import pytest

from openjepa.core.configure import configure
from openjepa.core.describe import describe, settings_in_use
from openjepa.core.locate import built_in_recipes, presets
from openjepa.health.treatment import HIGHEST_LR, REMEDIES, in_words, treat
from openjepa.health.verdict import RULES

PRESETS = [(recipe, preset) for recipe in built_in_recipes() for preset in presets(recipe)]
SICK = {
    "regularizer.name": "none",
    "regularizer.weight": 0.01,
    "regularizer.covariance": 0,
    "momentum.start": 1,
    "momentum.final": 1,
    "target.norm": "none",
    "train.lr": 10,
}


def test_there_is_a_remedy_for_every_kind_that_a_verdict_can_name() -> None:
    assert set(REMEDIES) == {rule.kind for rule in RULES}


@pytest.mark.parametrize("kind", REMEDIES)
@pytest.mark.parametrize(("recipe", "preset"), PRESETS)
def test_what_is_advised_can_be_set_and_changes_what_it_names(recipe: str, preset: str, kind: str | None) -> None:
    _, healthy = configure(recipe, preset)
    known = set(healthy.keys())
    for sick in ([], [f"{key}={value}" for key, value in SICK.items() if key in known]):
        _, before = configure(recipe, preset, overrides=sick)
        settings = {setting.key: setting.value for setting in describe(before)}
        patch = treat(kind, settings_in_use(before))
        assert patch
        assert in_words(patch, settings).count(", ") == len(patch) - 1
        _, after = configure(recipe, preset, overrides=[*sick, *(f"{key}={value}" for key, value in patch.items())])
        changed = {s.key: s.value for s in describe(after) if settings[s.key] != s.value}
        assert changed == patch
        assert after.train.lr <= max(HIGHEST_LR, before.train.lr)


FROZEN = "concept_jepa"  # whose targets cannot collapse


@pytest.mark.parametrize("recipe", [name for name in built_in_recipes() if "/" not in name and name != FROZEN])
def test_a_jepa_without_anything_against_collapse_gets_it(recipe: str) -> None:
    _, config = configure(recipe, overrides=["regularizer.name=none", "train.lr=10"])
    patch = treat("complete", {setting.key: setting.value for setting in describe(config)})
    assert patch["regularizer.name"] == "vicreg"
    assert patch["train.lr"] == HIGHEST_LR
    if recipe != "lejepa":  # which has no target encoder
        assert patch["momentum.start"] < patch["momentum.final"] < 1


@pytest.mark.parametrize("steps", [50, 1000, 100_000])
def test_a_teacher_is_made_to_follow_within_the_run(steps: int) -> None:
    patch = treat("teacher-lag", {"train.steps": steps, "train.lr": 1e-3, "momentum.start": 1, "momentum.final": 1})
    assert patch["momentum.start"] ** (0.05 * steps) == pytest.approx(0.5, abs=0.02)
    assert patch["momentum.final"] ** (0.2 * steps) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("recipe", "settings", "idle"),
    [
        (
            "vl_jepa",
            ["train_vision=false", "regularizer.name=none", "momentum.start=0.5"],
            ("regularizer.", "momentum."),
        ),
        ("lejepa", [], ("target.", "momentum.")),
        ("i_jepa", ["target_encoder=frozen", "momentum.start=0.5"], ("momentum.",)),
        ("nano_jepa", ["target_encoder=self", "momentum.start=0.5"], ("momentum.",)),
        (
            "t_jepa",
            ["regularizer.name=sigreg", "regularizer.covariance=0"],
            ("regularizer.covariance", "regularizer.mean"),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["complete", "position-only", "dimensional", "teacher-lag"])
def test_no_advice_is_about_a_setting_that_changes_nothing(
    recipe: str, settings: list[str], idle: tuple[str, ...], kind: str
) -> None:
    _, config = configure(recipe, overrides=settings)
    patch = treat(kind, settings_in_use(config))
    assert patch
    assert not [key for key in patch if key.startswith(idle)]


@pytest.mark.parametrize(("optimizer", "calmed"), [("adamw", True), ("muon", True), ("sgd", False), ("lars", False)])
def test_a_high_rate_is_a_fault_of_adamw_only(optimizer: str, calmed: bool) -> None:
    patch = treat("dimensional", {"train.lr": 0.3, "train.optimizer": optimizer, "regularizer.name": "vicreg",
                                  "regularizer.weight": 0.1})  # fmt: skip
    assert ("train.lr" in patch) == calmed
    assert treat(None, {"train.lr": 0.3, "train.optimizer": optimizer})["train.lr"] == (HIGHEST_LR if calmed else 0.1)
