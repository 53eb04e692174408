"""Configuration: frozen pydantic models, YAML in, YAML out, `key=value` overrides, every mistake named at once.

A key may be dotted (`train.steps=100`) or, where no other key ends in the same name, just its last part (`steps=100`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from glob import iglob
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from openjepa.core.errors import ConfigError, did_you_mean


def _rises_from_above_zero(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError("give two numbers above 0, the smaller one first")
    return value


Interval = Annotated[tuple[float, float], AfterValidator(_rises_from_above_zero)]  # both ends included


class BaseConfig(BaseModel):
    """A frozen section of a configuration. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, use_attribute_docstrings=True)
    LOCATIONS: ClassVar[
        Mapping[str, tuple[str, ...]]
    ] = {}  # fields that may hold a path, and their names that are none

    @classmethod
    def load(cls, values: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()) -> Self:
        """Validate nested `values`, after applying `overrides` of the form "a.b=value". Raises ConfigError."""
        data: dict[str, Any] = _deep_copy(values or {})
        problems: list[str] = []
        for item in overrides:
            key, sep, raw = item.partition("=")
            if not sep or not key:
                problems.append(f"override {item!r} is not of the form key=value")
                continue
            try:
                value = yaml.safe_load(raw) if raw else ""
            except yaml.YAMLError:
                value = raw
            problem = _assign(data, cls.full_key(key.strip().removeprefix("--")), value)
            if problem:
                problems.append(problem)
        try:
            config = cls.model_validate(data)
        except ValidationError as error:
            problems += [cls._explain(e) for e in error.errors()]
        if problems:
            raise ConfigError("; ".join(problems))
        return config

    def unused(self) -> set[str]:
        """Dotted keys of settings and whole sections that change nothing beside the values of the others."""
        found = set(self.unused_here())
        for name in type(self).model_fields:
            if isinstance(section := getattr(self, name), BaseConfig):
                found |= {f"{name}.{key}" for key in section.unused()}
        return found

    def unused_here(self) -> Iterable[str]:
        """The part of `unused` that this section knows of: a choice it offers may make others of its keys idle."""
        return ()

    @classmethod
    def keys(cls) -> Iterator[str]:
        """Dotted names of every setting, sections included after their members."""
        return _keys(cls)

    @classmethod
    def _names(cls) -> Iterator[str]:
        """What a user may have meant: full keys and their last parts."""
        for key in _keys(cls):
            yield from {key, key.rpartition(".")[2]}

    @classmethod
    def full_key(cls, key: str) -> str:
        """Expand a bare last part ("steps") to its full key ("train.steps") if exactly one key ends in it.

        What a mapping holds is found by the mapping's name: "optimizer_args.eps" is "train.optimizer_args.eps".
        """
        first, dot, rest = key.partition(".")
        if first in cls.model_fields:
            return key
        known = list(_keys(cls))
        matches = [one for one in known if one.endswith(f".{key}")]
        if not matches:
            matches = [one + dot + rest for one in known if one.endswith(f".{first}")]
        return matches[0] if len(matches) == 1 else key

    @classmethod
    def location_keys(cls) -> list[str]:
        """Dotted names of the settings that may hold a path: all that depends on where a run was made."""
        inner = [
            f"{name}.{key}"
            for name, field in cls.model_fields.items()
            if (section := _section(field.annotation)) is not None
            for key in section.location_keys()
        ]
        return [*cls.LOCATIONS, *inner]

    def setting(self, dotted: str) -> Any:
        """The value behind a dotted name, such as "data.source"."""
        return reduce(getattr, dotted.split("."), self)

    def with_absolute_paths(self) -> Self:
        """The same settings; relative paths and patterns that name something here become absolute."""
        changed: dict[str, Any] = {
            name: value.with_absolute_paths() for name, value in self if isinstance(value, BaseConfig)
        }
        for name, names in self.LOCATIONS.items():
            value = getattr(self, name)
            if isinstance(value, str) and value.strip() not in names and names_files(value):
                changed[name] = os.path.abspath(value)
        return self.model_copy(update=changed)

    @classmethod
    def _explain(cls, error: Any) -> str:
        key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function-"))
        if error["type"] == "extra_forbidden":
            owners = [known for known in _keys(cls) if known.endswith(f".{key}")]
            hint = f"; it could be {' or '.join(owners)}" if owners else did_you_mean(key, cls._names())
            return f"unknown key {key!r}{hint}"
        given = error.get("input")
        shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool | None) else ""
        return f"{key or 'config'}: {error['msg'].removeprefix('Value error, ')}{shown}"

    def dump(self, path: Path, **extra: Any) -> None:
        """Write as YAML, with `extra` keys first."""
        path.write_text(yaml.safe_dump({**extra, **self.model_dump(mode="json")}, sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping. Raises ConfigError naming the file and line."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where} is not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data or {}, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, not a {type(data).__name__}")
    return data or {}


def names_files(value: str) -> bool:
    """Whether a value is a path, or a glob pattern, of something that exists, seen from the working directory."""
    return bool(value.strip()) and (Path(value).exists() or next(iglob(value, recursive=True), None) is not None)


def _section(annotation: Any) -> type[BaseConfig] | None:
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseConfig)), None)


def _keys(config: type[BaseConfig]) -> Iterator[str]:
    for name, field in config.model_fields.items():
        if (section := _section(field.annotation)) is not None:
            yield from (f"{name}.{inner}" for inner in _keys(section))
        yield name


def _deep_copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _deep_copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _assign(data: dict[str, Any], dotted: str, value: Any) -> str | None:
    *parents, leaf = dotted.split(".")
    node = data
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = {}
        elif not isinstance(child, dict):
            if parent != "data":
                return f"{dotted} cannot be set: {parent} is {child!r}, not a section"
            child = {"source": child}
        node[parent] = child
        node = child
    node[leaf] = value
    return None


OPTIMIZERS = ("adamw", "sgd", "muon", "lars")  # made in `train.optimizers`


class TrainConfig(BaseConfig):
    """How long, how fast and on what. One section shared by all recipes."""

    steps: int = Field(1000, ge=1)
    """optimiser steps"""
    batch_tokens: int = Field(0, ge=0)
    """real tokens per batch, bucketed by length; 0 = use batch_size"""
    batch_size: int = Field(64, ge=1)
    """rows per batch over all ranks; with batch_tokens, the most rows a batch may have"""
    accumulate: int = Field(1, ge=1)
    """batches per optimiser step"""
    optimizer: str = "adamw"
    """adamw | sgd | muon | lars | package.module:Class; muon trains hidden matrices, and adamw the rest"""
    optimizer_args: dict[str, Any] = {}
    """the optimiser's own arguments, such as {momentum: 0.9} of sgd; lr, weight_decay and betas have settings here"""
    lr: float = Field(1e-3, gt=0)
    """peak learning rate; the default suits adamw and muon, sgd and lars want a higher one"""
    final_lr: float = Field(1e-6, ge=0)
    """learning rate at the last step"""
    warmup_steps: int = Field(100, ge=0)
    """steps of linear warm-up, from 0.2 of the peak"""
    predictor_only: float = Field(0.0, ge=0, le=1)
    """last part of the run in which all but the predictor is frozen, and the rate has a warm-up and a cosine of its
    own; other schedules (weight decay, momentum, contrast) go by the whole run"""
    weight_decay: float = Field(0.04, ge=0)
    """at the start; biases, norms and other vectors never decay"""
    final_weight_decay: float | None = Field(None, ge=0)
    """at the last step, reached on a cosine; unset = constant"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay rates of adamw, and of the part that muon leaves to it"""
    grad_clip: float = Field(1.0, gt=0)
    """largest allowed gradient norm"""
    precision: Literal["bf16-mixed", "32-true"] = "32-true"
    """bf16-mixed is faster on CUDA and on CPUs with AMX; losses and statistics are fp32 in both"""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    devices: int = Field(1, ge=1)
    """processes, one a device; more than 1 trains under DDP"""
    threads: int = Field(0, ge=0)
    """most CPU threads a process computes with; 0 = torch's choice, 1 is faster for models of tiny width"""
    workers: int = Field(0, ge=0)
    """data loading processes per rank; changes nothing but speed"""
    seed: int = 0
    """of weights, order, masks and dropout"""
    log_every: int = Field(20, ge=1)
    """steps between log lines"""
    health_every: int = Field(100, ge=1)
    """steps between health checks on held-out batches"""
    health_samples: int = Field(256, ge=1)
    """held-out samples per health check, in batches of the training's size; fewer than 32 give no verdict"""
    checkpoint_every: int = Field(500, ge=0)
    """steps between checkpoints; 0 = at the end only"""
    keep_checkpoints: int = Field(2, ge=1)
    """newest checkpoints kept, besides the one with the best health"""
    on_collapse: Literal["warn", "stop"] = "warn"
    """what to do when the verdict says collapsed"""
    track: tuple[Literal["tensorboard"], ...] = ()
    """loggers besides metrics.jsonl and metrics.csv: tensorboard"""

    @field_validator("track", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("optimizer")
    @classmethod
    def _optimizer_is_known(cls, value: str) -> str:
        if value not in OPTIMIZERS and ":" not in value:
            raise ValueError(
                f"unknown optimiser{did_you_mean(value, OPTIMIZERS)}; known: {', '.join(OPTIMIZERS)}; "
                "or give package.module:Class"
            )
        return value

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        object.__setattr__(self, "warmup_steps", fitting_warmup(self.warmup_steps, self.joint_steps or self.steps))
        return self

    @property
    def joint_steps(self) -> int:
        """Steps in which everything learns; in those after them only the predictor does."""
        joint = round(self.steps * (1 - self.predictor_only))
        if 0 < self.predictor_only < 1:  # a part that was asked for has a step
            joint = max(1, min(joint, self.steps - 1))
        return joint


def fitting_warmup(warmup_steps: int, steps: int) -> int:
    """`warmup_steps` if `steps` are as many, else a tenth of those: short trial runs still warm up."""
    return warmup_steps if warmup_steps <= steps else max(1, steps // 10)
