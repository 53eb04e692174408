"""Configuration: frozen pydantic models, YAML in, YAML out, `key=value` overrides, all mistakes reported at once.

A key may be dotted (`train.steps=100`) or, where no other key ends in the same name, just its last part (`steps=100`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from glob import iglob
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from openjepa.core.errors import ConfigError, did_you_mean
from openjepa.core.values import Written, as_setting, as_yaml, from_command_line, kinds_of


def _rises_from_above_zero(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError("give two numbers above 0, the smaller one first")
    return value


Interval = Annotated[tuple[float, float], AfterValidator(_rises_from_above_zero)]  # both ends included


class BaseConfig(BaseModel):
    """A frozen section of a configuration. Unknown keys are errors, and all numbers are finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    LOCATIONS: ClassVar[
        Mapping[str, tuple[str, ...]]
    ] = {}  # fields that may hold a path, and their values that are none
    SHORTHAND: ClassVar[str | None] = None  # the field that a plain value in place of this section stands for
    FIRST: ClassVar[tuple[str, ...] | None] = None  # the fields that an overview shows; None = all

    @classmethod
    def load(
        cls,
        values: Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
        given: Mapping[str, Any] | None = None,
    ) -> Self:
        """Validate nested `values`, with `overrides` and then `given` in their place. Raises ConfigError.

        Args:
            values: settings and sections, as a file holds them. What a section leaves out keeps its default.
            overrides: "a.b=value" strings, as on the command line.
            given: Python values by key, "a.b" or "b" where only one key ends in it; taken as they are.
        """
        data: dict[str, Any] = _deep_copy(values or {})
        problems: list[str] = []
        changes: list[tuple[str, Any]] = []
        for item in overrides:
            key, sep, text = item.partition("=")
            if not sep or not key:
                problems.append(f"override {item!r} is not of the form key=value")
                continue
            key = override_key(item)
            try:
                changes.append((cls.full_key(key), from_command_line(text, cls._type_of(cls.setting_key(key)))))
            except ValueError as error:
                problems.append(f"{cls.full_key(key)}: {error}")
        changes += [(cls.full_key(key), value) for key, value in (given or {}).items()]
        for key, value in changes:
            try:
                cls._assign(data, key.split("."), value)
            except ValueError as error:
                problems.append(f"{key}: {error}{_given(value)}")
        try:
            config = cls.model_validate(data)
        except ValidationError as error:
            problems += [cls._explain(e) for e in error.errors()]
        if problems:
            raise ConfigError("; ".join(dict.fromkeys(problems)))
        return config

    @classmethod
    def _assign(cls, data: dict[str, Any], key: Sequence[str], value: Any) -> None:
        """Set what `key` names in nested `data`. Raises ValueError if it cannot be set there."""
        name, *rest = key
        field = cls.model_fields.get(name)
        section = None if field is None else section_of(field.annotation)
        if section is None:
            if not rest:
                data[name] = value
                return
            inside = data.get(name)
            inside = {} if inside is None else inside
            if not isinstance(inside, dict):
                raise ValueError(f"cannot be set: {name} is {inside!r}, not a section")
            data[name] = inside
            BaseConfig._assign(inside, rest, value)  # a mapping: it has no declared fields
            return
        if not rest and isinstance(value, BaseConfig):
            data[name] = value
            return
        data[name] = inside = dict(section._spelled_out(data.get(name, {}), name))
        if rest:
            section._assign(inside, rest, value)
            return
        if not section._spelled_out(value, name):
            raise ValueError(f"is empty; set a key of it, such as {name}.{section._example()}")
        for inner, item in section._spelled_out(value, name).items():
            section._assign(inside, str(inner).split("."), item)

    @classmethod
    def _spelled_out(cls, value: Any, name: str = "") -> Mapping[str, Any]:
        """This section, called `name`, as a mapping; a plain value may stand for it. Raises ValueError."""
        if isinstance(value, BaseConfig):
            return {field: getattr(value, field) for field in value.model_fields_set}
        if isinstance(value, Mapping):
            return value
        if isinstance(value, Written) and not value.strip():  # in YAML, a heading with nothing below it
            return {}
        if cls.SHORTHAND is None or value is None or isinstance(value, bool | list | tuple):
            raise ValueError(
                f"is a section of settings; set one of them, such as {name}{'.' * bool(name)}{cls._example()}"
            )
        return {cls.SHORTHAND: value}

    @classmethod
    def _example(cls) -> str:
        return (cls.FIRST or tuple(cls.model_fields))[0]

    @model_validator(mode="before")
    @classmethod
    def _plain_value_is_shorthand(cls, value: Any) -> Any:
        return value if isinstance(value, BaseConfig) else cls._spelled_out(value)

    @field_validator("*", mode="before")
    @classmethod
    def _as_declared(cls, value: Any, info: ValidationInfo) -> Any:
        """Convert a value to its type; merge a section over the field's default, so that it may be partial."""
        field = cls.model_fields[str(info.field_name)]
        section = section_of(field.annotation)
        if section is None:
            return as_setting(value, field.annotation)
        if isinstance(value, BaseConfig):
            return value
        return _over(field.default, section._spelled_out(value, str(info.field_name)))

    def unused(self) -> set[str]:
        """Dotted keys of settings and whole sections without effect, given the values of the others."""
        found = set(self.unused_here())
        for name in type(self).model_fields:
            if isinstance(section := getattr(self, name), BaseConfig):
                found |= {f"{name}.{key}" for key in section.unused()}
        return found

    def unused_here(self) -> Iterable[str]:
        """The part of `unused` within this section: one of its choices may leave other keys without effect."""
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
    def setting_key(cls, key: str) -> str:
        """The full key of the setting that a plain value behind `key` sets: "data" is "data.source"."""
        full = cls.full_key(key)
        found = cls._type_of(full)
        shorthand = found.SHORTHAND if isinstance(found, type) and issubclass(found, BaseConfig) else None
        return f"{full}.{shorthand}" if shorthand else full

    @classmethod
    def _type_of(cls, key: str) -> Any:
        """The type behind a full key, a section included; Any for an unknown key and for one within a mapping."""
        name, _, rest = key.partition(".")
        field = cls.model_fields.get(name)
        section = None if field is None else section_of(field.annotation)
        if section is not None:
            return section._type_of(rest) if rest else section
        return Any if field is None or rest else field.annotation

    @classmethod
    def location_keys(cls) -> list[str]:
        """Dotted names of the settings that may hold a path: all that depends on where a run was made."""
        inner = [
            f"{name}.{key}"
            for name, field in cls.model_fields.items()
            if (section := section_of(field.annotation)) is not None
            for key in section.location_keys()
        ]
        return [*cls.LOCATIONS, *inner]

    def locations(self) -> dict[str, str]:
        """The settings that name a file, or a model or data set of the hub, by dotted name."""
        found: dict[str, str] = {}
        for name, value in self:
            if isinstance(value, BaseConfig):
                found |= {f"{name}.{key}": inner for key, inner in value.locations().items()}
            elif name in self.LOCATIONS and isinstance(value, str) and value.strip() not in self.LOCATIONS[name]:
                found[name] = value
        return found

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
        return f"{key or 'config'}: {error['msg'].removeprefix('Value error, ')}{_given(error.get('input'))}"

    def dump(self, path: Path, **extra: Any) -> None:
        """Write as YAML, with `extra` keys first."""
        path.write_text(as_yaml({**extra, **self.model_dump(mode="json")}), encoding="utf-8")


def override_key(item: str) -> str:
    """The key of a "key=value" string, which may be spelled as an option: "--key=value"."""
    return item.partition("=")[0].strip().removeprefix("--")


def names_files(value: str) -> bool:
    """Whether a value is a path, or a glob pattern, of something that exists, relative to the working directory."""
    return bool(value.strip()) and (os.path.exists(value) or next(iglob(value, recursive=True), None) is not None)


def _given(value: Any) -> str:
    return f" (given: {value!r})" if isinstance(value, str | int | float | bool | None) else ""


def section_of(annotation: Any) -> type[BaseConfig] | None:
    """The section that a field of this type holds, if it is one."""
    return next(
        (kind for kind in kinds_of(annotation) if isinstance(kind, type) and issubclass(kind, BaseConfig)), None
    )


def _over(default: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` on top of what a section's default has set."""
    if not isinstance(default, BaseConfig):
        return values
    merged = {name: getattr(default, name) for name in default.model_fields_set}
    for name, value in values.items():
        inner = getattr(default, name, None) if name in type(default).model_fields else None
        if isinstance(inner, BaseConfig) and not isinstance(value, BaseConfig):
            merged[name] = _over(inner, type(inner)._spelled_out(value, name))
        else:
            merged[name] = value
    return merged


def _keys(config: type[BaseConfig]) -> Iterator[str]:
    for name, field in config.model_fields.items():
        if (section := section_of(field.annotation)) is not None:
            yield from (f"{name}.{inner}" for inner in _keys(section))
        yield name


def _deep_copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(k): _deep_copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}
