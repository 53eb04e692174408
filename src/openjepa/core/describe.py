"""Configurations for people: every key with its type, default and meaning, and a commented YAML file to start from.

The meaning is the attribute docstring under the field; nothing is documented twice.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from openjepa.core.base_config import BaseConfig, section_of
from openjepa.core.values import as_yaml

LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


class Setting(NamedTuple):
    """One key of a configuration."""

    key: str  # dotted
    type: str
    default: Any  # of the recipe
    value: Any
    doc: str

    @property
    def summary(self) -> str:
        """Its meaning, up to the first semicolon outside brackets."""
        semicolons = (i for i, sign in enumerate(self.doc) if sign == ";")
        outside = (i for i in semicolons if self.doc.count("(", 0, i) == self.doc.count(")", 0, i))
        return self.doc[: next(outside, None)]


def describe(config: BaseConfig, defaults: BaseConfig | None = None) -> Iterator[Setting]:
    """Every setting in file order; sections are walked through, not listed.

    `defaults` are those of `config` where it is a section of another one; if not given, those of its class.
    """
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        default = field.get_default(call_default_factory=True) if defaults is None else getattr(defaults, name)
        if isinstance(value, BaseConfig):
            inside = describe(value, default if isinstance(default, BaseConfig) else None)
            yield from (setting._replace(key=f"{name}.{setting.key}") for setting in inside)
        else:
            yield Setting(name, _type_name(field), _plain(default), _plain(value), _doc(field))


def lower_settings(config: BaseConfig) -> str:
    """A hint at the settings, beside those of data and training, that are largest beside their defaults."""
    sizes = {
        f"{setting.key}={setting.value}": setting.value / setting.default
        for setting in describe(config)
        if type(setting.value) is type(setting.default) is int
        and setting.default > 0
        and not setting.key.startswith(("data.", "train."))
    }
    largest = sorted((name for name, times in sizes.items() if times > 1), key=lambda name: -sizes[name])[:3]
    return f"lower {', '.join(largest)}" if largest else "choose smaller networks"


def first_keys(config: type[BaseConfig]) -> Iterator[str]:
    """Dotted names of the settings in an overview: those in `FIRST` of each section, of sections in `FIRST`."""
    for name, field in config.model_fields.items():
        if config.FIRST is not None and name not in config.FIRST:
            continue
        section = section_of(field.annotation)
        yield from [name] if section is None else (f"{name}.{key}" for key in first_keys(section))


def settings_in_use(config: BaseConfig) -> dict[str, Any]:
    """Dotted key -> value of all settings except those without effect (`BaseConfig.unused`)."""
    unused = config.unused()
    sections = tuple(f"{key}." for key in unused)
    return {s.key: s.value for s in describe(config) if s.key not in unused and not s.key.startswith(sections)}


def commented_yaml(config: BaseConfig, recipe: str) -> str:
    """The configuration as YAML with every key's type and meaning in a comment. Loads back to an equal one."""
    return "\n".join([f"recipe: {recipe}", *_lines(config, "")]) + "\n"


def _lines(config: BaseConfig, indent: str) -> Iterator[str]:
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseConfig):
            yield f"{indent}{name}:  # {_first_line(type(value).__doc__)}"
            yield from _lines(value, f"{indent}  ")
        else:
            entry = as_yaml({name: _plain(value)}, default_flow_style=True, width=1000)
            yield f"{indent}{entry.strip()[1:-1]}  # {_type_name(field)}; {_doc(field) or name}"


def _plain(value: Any) -> Any:
    """As YAML and JSON would hold it."""
    if value is PydanticUndefined:
        return "required"
    return list(value) if isinstance(value, tuple) else value


def _type_name(field: FieldInfo) -> str:
    limits = [
        f"{sign} {limit:g}"
        for part in field.metadata
        for name, sign in LIMITS.items()
        if (limit := getattr(part, name, None)) is not None
    ]
    return f"{_name(field.annotation)} {' and '.join(limits)}".strip()


def _name(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "null"
    origin = get_origin(annotation)
    inner = get_args(annotation)
    if origin is Literal:
        return " | ".join(str(choice) for choice in inner)
    if origin in (Union, types.UnionType):
        return " | ".join(_name(part) for part in inner)
    if origin is dict:
        return "mapping"
    if inner:
        return f"list of {', '.join(_name(part) for part in inner if part is not Ellipsis)}"
    return {"str": "text", "bool": "true | false"}.get(annotation.__name__, annotation.__name__)


def _doc(field: FieldInfo) -> str:
    """The field's docstring on one line."""
    return " ".join((field.description or "").split())


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]
