"""What results.json of a study holds, checked before it is shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from openjepa.core.json_files import Number, Whole, Written

Interval = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]


class StudiedMeasure(Written):
    """A measure of an arm: means over seeds."""

    mean: Number
    init: Number
    chance: Number | None


class StudiedArm(Written):
    """An arm of a study."""

    label: str
    verdict: str
    skill: Number | None
    measures: dict[str, StudiedMeasure]
    train_s: FiniteFloat | None
    tokens: Number | None
    flops: Number | None


class StudiedDifference(Written):
    """A difference of an arm to the first one."""

    arm: str
    measure: str
    headline: bool
    value: FiniteFloat
    interval: Interval | None
    agreeing: Whole
    seeds: Whole
    p_items_holm: Number | None
    p_seeds_holm: Number | None


class Budget(Written):
    """What every arm of a comparison may use."""

    amount: FiniteFloat
    unit: str


class StudyFile(Written):
    """results.json; see `studies.results.summary`."""

    kind: Literal["ablate", "compare"]
    seeds: Annotated[list[Whole], Field(min_length=1)]
    jobs: Whole
    base: str
    budget: Budget | None = None
    headlines: list[str]
    arms: Annotated[list[StudiedArm], Field(min_length=1)]
    differences: list[StudiedDifference]
    asked_apart: list[str] = Field([])
    baselines: dict[str, dict[str, Number]]

    @model_validator(mode="after")
    def _differences_are_of_its_arms(self) -> StudyFile:
        labels = {arm.label for arm in self.arms}
        for row in self.differences:
            if row.arm not in labels or (row.headline and row.measure not in self.headlines):
                raise ValueError(f"the difference of {row.arm!r} on {row.measure!r} is of no arm or headline")
        return self
