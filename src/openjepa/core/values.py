"""Interpret values that a user wrote: on the command line, in a YAML file, or as a Python object.

The type of the setting decides. A text is taken letter by letter: "no", "2024-01-01" and "notes #1.jsonl"
are no booleans, dates or comments. Everywhere else numbers are as in Python (3e-4), booleans are true and false,
nothing is null, and lists and mappings are YAML's: [0.9, 0.95], {momentum: 0.9}. So a scalar is kept as `Written` until
its setting is known.
"""

from __future__ import annotations

import math
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from yaml.constructor import ConstructorError

from openjepa.core.errors import ConfigError

UNSET = ("", "null", "~", "none")  # written without quotes, in any case: nothing, where a setting may be unset
BOOLEANS = {"true": True, "false": False}
NOT_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
QUOTES = "'\""
LARGEST = 2**63 - 1  # of whole numbers
SCALARS = ("null", "bool", "int", "float", "timestamp", "str")  # YAML's types of scalars


class Written(str):
    """A scalar as it was written, without quotes: its meaning depends on the type of its setting."""

    __slots__ = ()


class AsWritten(yaml.SafeLoader):
    """Reads YAML with its scalars as `Written`; quoted ones are plain text. A duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<" and names.count(key.value) > 1:
                raise ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
        return super().construct_mapping(node, deep)


def _scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return Written(node.value) if node.style is None else str(node.value)


for _type in SCALARS:
    AsWritten.add_constructor(f"tag:yaml.org,2002:{_type}", _scalar)


LINE_BREAKS = set("\x85\u2028\u2029")  # of YAML; in other quotes they would be read as spaces


class _Dumper(yaml.SafeDumper):
    """Puts quotes around a text that would not be read as text."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        is_special = text.strip().lower() in UNSET or not isinstance(_meaning(Written(text), (Any,)), str)
        style = '"' if LINE_BREAKS & set(text) else "'" if is_special else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping, scalars as `Written`. Raises ConfigError naming the file and line."""
    if path.is_fifo():  # the file is read twice (first for the recipe); a pipe would then be empty
        raise ConfigError(f"{path} is a pipe; write the configuration to a file")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=AsWritten)
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where} is not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data or {}, dict):
        kind = "str" if isinstance(data, str) else type(data).__name__
        raise ConfigError(f"{path} must hold a mapping of keys to values, not a {kind}")
    return data or {}


def as_yaml(value: Any, **options: Any) -> str:
    """YAML that `read_yaml` reads as equal values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options)


def plain(value: Any) -> Any:
    """`value` with every `Written` scalar converted without a known type: to null, a boolean, a number or a text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(inner) for inner in value)
    return _object(_meaning(value, (Any,)) if isinstance(value, Written) else value, (Any,))


def from_command_line(text: str, annotation: Any) -> Any:
    """The value behind `key=` for a setting of this type; its type is not checked. Raises ValueError.

    Quotes around all of it make it a text, whatever is in them.
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES:
        try:
            return str(yaml.safe_load(text))
        except yaml.YAMLError:
            return Written(text)
    if text.lstrip()[:1] in ("[", "{") and str not in kinds_of(annotation):
        try:
            return yaml.load(text, Loader=AsWritten)
        except yaml.YAMLError as error:
            raise ValueError(f"{text} is no list or mapping: {getattr(error, 'problem', error)}") from None
    return Written(text)


def on_command_line(value: Any) -> str:
    """`value` as a string that `from_command_line` parses to it, for a setting of its type."""
    if isinstance(value, str) and value.strip().lower() not in UNSET and value[:1] not in (*QUOTES, "[", "{"):
        return value
    return as_yaml(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings by key as "key=value" words of the command line."""
    return [f"{key}={on_command_line(value)}" for key, value in settings.items()]


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """The types that a setting may have: the members of a union, and None for an optional one."""
    if hasattr(annotation, "__value__"):  # a named type alias
        return kinds_of(annotation.__value__)
    if get_origin(annotation) is Annotated:
        return kinds_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for part in get_args(annotation) for kind in kinds_of(part))
    return (None if annotation is type(None) else annotation,)


def as_setting(value: Any, annotation: Any) -> Any:
    """The value of a setting of this type. Raises ValueError that says what to write; pydantic checks the rest."""
    kinds = kinds_of(annotation)
    lists = [kind for kind in kinds if get_origin(kind) in (tuple, list)]
    mappings = [kind for kind in kinds if get_origin(kind) is dict or kind is dict]
    if isinstance(value, Written):
        if str in kinds or not (lists or mappings):
            value = _meaning(value, kinds)
        elif value.strip().lower() in UNSET and None in kinds:
            return None
        else:
            value = _only_item(value, lists)
    if isinstance(value, Mapping) and mappings:
        inner = (get_args(mappings[0]) or (Any, Any))[1]
        return {str(key): as_setting(item, inner) for key, item in value.items()}
    if isinstance(value, str) and lists and str not in kinds:
        value = _only_item(value, lists)
    if isinstance(value, list | tuple) and lists:
        return _items(value, lists[0])
    if isinstance(value, list | tuple | Mapping):
        return plain(value)
    return _object(value, kinds)


def _items(values: Sequence[Any], annotation: Any) -> list[Any]:
    inner = get_args(annotation)
    if len(inner) == 1 or (len(inner) == 2 and inner[1] is Ellipsis):
        return [as_setting(value, inner[0]) for value in values]
    if len(inner) != len(values):
        raise ValueError(f"give a list of {len(inner)} values, such as [{', '.join('abcdef'[: len(inner)])}]")
    return [as_setting(value, kind) for value, kind in zip(values, inner, strict=True)]


def _only_item(value: str, lists: Sequence[Any]) -> list[str]:
    """A single value where a list of any length is wanted."""
    if not lists:
        raise ValueError("give a mapping such as {key: value}")
    if isinstance(value, Written) and not value.strip():
        return []
    if (isinstance(value, Written) and "," in value) or Ellipsis not in get_args(lists[0]):
        raise ValueError(f"give a list in brackets, such as [{value.strip() if ',' in value else 'a, b'}]")
    return [value]


def _object(value: Any, kinds: Sequence[Any]) -> Any:
    """A Python object that is neither a list nor a mapping."""
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, os.PathLike) and Path not in kinds:
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("give a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"give a number between -{LARGEST:.1e} and {LARGEST:.1e}")
    if bool in kinds and not isinstance(value, bool) and not _any_of(kinds, Any, int, float, str):
        if value is None and None in kinds:
            return None
        meant = NOT_BOOLEANS.get(str(value).strip().lower())
        raise ValueError(f"give {meant}" if meant else "give true or false")
    if isinstance(value, bool) and not _any_of(kinds, bool, Any) and _any_of(kinds, int, float):
        raise ValueError("give a number")
    return value


def _meaning(written: Written, kinds: Sequence[Any]) -> Any:
    """The value of a scalar for a setting of these types."""
    word = written.strip().lower()
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if written in choices:
        return str(written)
    if word in UNSET and (None in kinds or (Any in kinds and word != "none")):
        return None
    if _any_of(kinds, str, Path):
        if not word:
            raise ValueError("is empty; give a text, or leave it out")
        return str(written)
    if word in BOOLEANS and _any_of(kinds, bool, Any, int, float):
        return BOOLEANS[word]  # `_object` rejects it where a number is wanted
    number = _number(word) if choices or _any_of(kinds, int, float, Any) else None
    return str(written) if number is None else number


def _number(word: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(word.removeprefix(".") if word in (".inf", ".nan") else word)
        except ValueError:
            continue
    return None


def _any_of(kinds: Sequence[Any], *wanted: Any) -> bool:
    return any(kind in kinds for kind in wanted)
