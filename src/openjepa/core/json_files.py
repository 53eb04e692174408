"""The JSON files of a run folder, checked when they are read: one line tells which file, key and value is wrong.

A file may be damaged, or a stranger's. So what is not as it was written never gets further than this: an object with a
value of another kind is a UserError, and a line of a log that is no record is left out, and said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, TypeAdapter, ValidationError, model_validator

from openjepa.core.errors import UserError
from openjepa.core.remarks import remark

LARGEST = 2**63 - 1  # of a whole number: all of them have a float
DEEPEST = 40  # lists and objects within one another
SHOWN = 60  # characters of a wrong value

Whole = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Number = float  # or a whole one; NaN and infinity are in logs of runs that went wrong


class Written(BaseModel):
    """An object of a JSON file. Types are strict: "1" is no number."""

    model_config = ConfigDict(strict=True, extra="allow")


class LogRow(Written):
    """A line of metrics.jsonl: all values are numbers."""

    __pydantic_extra__: dict[str, bool | Number] = Field(init=False)  # ty: ignore[incompatible-mutable-override]
    step: Annotated[int, Field(ge=0, le=LARGEST)]


class HealthRecord(LogRow):
    """A line of health.jsonl; see `health.monitor`. All other values are numbers."""

    status: str
    kind: str | None = None
    evidence: str = ""
    advice: str = ""
    also: list[str | None] = []
    score: Number = 0.0


class Notes(Written):
    """Counts of the data, and facts on the method."""

    data: dict[str, Whole] = {}
    unknown_share: Number = 0.0
    predictor_alone_after_step: Whole | None = None
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)  # ty: ignore[incompatible-mutable-override]


class Environment(Written):
    """env.json: where and how a run was made, and notes on its data and method."""

    command: str = ""
    started: str = ""
    versions: dict[str, str | None] = {}
    notes: Notes = Notes()
    changes: list[JsonValue] = []


class Decided(Written):
    """What `openjepa adapt` kept, and why."""

    kept: Literal["start", "whitening", "predictor"]
    reasons: list[str]


class HeldOut(Written):
    """What a candidate of `openjepa adapt` reached on held-out documents."""

    part_finds_rest: Number
    first_finds_rest: Number
    neighbours_kept: Number | None


class Guarded(Written):
    """What measures that must not get worse did, a line each."""

    lines: list[str]


class Adaptation(Written):
    """adaptation.json: what `openjepa adapt` found."""

    base: str
    documents: Whole
    documents_of_one_part: Whole
    parts: Whole
    dim: Whole
    effective_rank: Number | None
    cohesion: Number
    seconds: FiniteFloat
    decision: Decided
    held_out: dict[str, HeldOut]
    guard: Guarded | None = None


class RandomPairs(Written):
    """What cosines of random pairs are."""

    mean: FiniteFloat
    std: FiniteFloat
    pairs: Whole = 0
    texts: Whole = 0


class Similar(Written):
    """N texts compared, see `evals.similarity.similar`; `cosine`, `z` and `percentile` are N x N."""

    texts: list[str]
    labels: list[str] | None = None
    cosine: list[list[FiniteFloat]]
    z: list[list[FiniteFloat]]
    percentile: list[list[FiniteFloat]] | None = None
    random_pairs: RandomPairs

    @model_validator(mode="after")
    def _one_row_a_text(self) -> Similar:
        count = len(self.texts)
        tables = [self.cosine, self.z, self.percentile or self.z]
        if any(len(row) != count for table in tables for row in [table, *table]):
            raise ValueError("each text needs one row and one column")
        if self.labels is not None and len(self.labels) != count:
            raise ValueError("each text needs one label")
        return self


class Summary(Written):
    """summary.json: the result of a run. What is missing is not known (yet)."""

    recipe: str | None = None
    steps: Whole | None = None
    train_s: FiniteFloat | None = None
    tokens_per_s: FiniteFloat | None = None
    samples_per_s: FiniteFloat | None = None
    loss: Number | None = None
    skill: Number | None = None
    verdict: str | None = None
    health: HealthRecord | None = None
    notes: Notes = Notes()
    peak_memory_gb: dict[str, FiniteFloat] = {}
    semantic: Similar | None = None


def parsed(text: str) -> Any:
    """A JSON value. Raises ValueError also for one that is nested too deeply or holds a number without end."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _is_deeper(value, DEEPEST):
        raise ValueError("it is nested too deeply")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(one, levels - 1) for one in inner)


def read_json(path: Path, schema: Any = Any) -> Any:
    """A JSON file that we wrote. Raises UserError if it is damaged, or not as `schema`, a type."""
    try:
        value = parsed(path.read_text(encoding="utf-8"))
    except ValueError:
        raise damaged(path, "it is not the JSON that was written") from None
    return checked(value, schema, path)


def read_object(path: Path, schema: type[Written]) -> dict[str, Any]:
    """An object of a JSON file, as it stands there; {} if there is no file. Raises UserError if it is not as `schema`.

    Where the file says nothing, values that the schema has by default are not filled in.
    """
    return read_json(path, schema) if path.is_file() else {}


def checked(value: Any, schema: Any, path: Path | str) -> Any:
    """`value` of the file `path`, if it is as `schema`, a type. Raises UserError naming the key that is not."""
    try:
        _adapter(schema).validate_python(value)
    except ValidationError as error:
        raise damaged(path, _first(error)) from None
    return value


def damaged(path: Path | str, why: str) -> UserError:
    """The error for a file that is not as it was written."""
    return UserError(f"{path} is damaged: {why}; remove it, and make it anew")


def read_jsonl(path: Path, schema: type[Written] = Written) -> Iterator[dict[str, Any]]:
    """Records of a JSON-lines file that we wrote, with what the schema has by default.

    A line that is no record is left out, and said once a file; not so the last one, if it has no end (yet).
    """
    if not path.is_file():
        return
    wrong: list[int] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = parsed(line)
                defaults = _adapter(schema).validate_python(row).model_dump(exclude=set(row))
            except (ValueError, TypeError):  # ValidationError is a ValueError
                if line.endswith("\n") and line.strip():
                    wrong.append(number)
                continue
            yield {**row, **defaults}
    if wrong:
        _say_once(f"{path}: {len(wrong)} damaged lines are left out, the first is line {wrong[0]}")


@cache
def _say_once(message: str) -> None:
    remark(message)


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _first(error: ValidationError) -> str:
    """Which key is wrong first, and why."""
    found = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in found["loc"])
    given = repr(found.get("input"))
    said = f"{found['msg'][:1].lower()}{found['msg'][1:]}"
    return f"{key + ': ' if key else ''}{said} (it is {given if len(given) <= SHOWN else given[:SHOWN] + '...'})"
