"""The public API as lines of text, one a name; `python -m tests.public_api` records it in contract/public_api.txt.

A module is public in what its `__all__` names. Of a class these are its constructor, fields, methods and properties,
also those that it has from classes of the package that are not public; not what it has from torch, pydantic or
scikit-learn.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

MODULES = ("openjepa", "openjepa.recipe", "openjepa.sklearn")
RECORD = Path(__file__).parent / "contract" / "public_api.txt"
HEADER = "# The public API, which a test compares with the code. Record it anew with: make api"
ADDRESS = re.compile(r"<(?:function|class) '?([\w.<>]+)'?(?: at 0x[0-9a-f]+)?>")  # of a default that is code


def public_api() -> list[str]:
    """All lines, in an order that does not depend on the order of the source."""
    return [HEADER, *(line for name in MODULES for line in described_module(name))]


def described_module(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for public in sorted(module.__all__):
        value = getattr(module, public)
        full = f"{name}.{public}"
        if isinstance(value, ModuleType):
            yield f"{full}: module"
        elif inspect.isclass(value):
            yield from described_class(full, value)
        elif callable(value):
            yield f"{full}{signature(value)}"
        else:
            yield f"{full}: {type(value).__name__}"


def described_class(full: str, cls: type) -> Iterator[str]:
    own = [base for base in cls.__mro__ if base.__module__.partition(".")[0] == "openjepa"]
    own = [base for base in own if base is cls or base not in public_classes()]  # those say it themselves
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    yield f"class {full}({bases})"
    if "__init__" in vars(cls) and not issubclass(cls, BaseModel):
        yield f"{full}{signature(cls)}"
    members: dict[str, str] = {}
    for base in reversed(own):
        members |= dict(fields(base, cls))
        members |= dict(methods(base))
    yield from (f"{full}.{name}{described}" for name, described in sorted(members.items()))


@cache
def public_classes() -> frozenset[type]:
    modules = map(importlib.import_module, MODULES)
    values = [getattr(module, name) for module in modules for name in module.__all__]
    return frozenset(value for value in values if inspect.isclass(value))


def fields(base: type, cls: type) -> Iterator[tuple[str, str]]:
    for name, annotation in vars(base).get("__annotations__", {}).items():
        if not name.startswith("_"):
            default = default_of(name, cls)
            yield name, f": {getattr(annotation, '__forward_arg__', annotation)}{default}"


def default_of(name: str, cls: type) -> str:
    if issubclass(cls, BaseModel):
        field = cls.model_fields.get(name)
        value = PydanticUndefined if field is None else field.get_default(call_default_factory=True)
        return "" if value is PydanticUndefined else f" = {shown(value)}"
    parameter = inspect.signature(cls).parameters.get(name)
    has_default = parameter is not None and parameter.default is not inspect.Parameter.empty
    return f" = {shown(parameter.default)}" if has_default else ""  # ty: ignore[possibly-missing-attribute]


def methods(base: type) -> Iterator[tuple[str, str]]:
    for name, member in vars(base).items():
        if name.startswith("_"):
            continue
        if isinstance(member, classmethod | staticmethod):
            yield name, f"{signature(member.__func__)}  # {type(member).__name__}"
        elif isinstance(member, property | cached_property):
            getter: Any = member.fget if isinstance(member, property) else member.func
            yield name, f": {getter.__annotations__.get('return', 'Any')}  # property"
        elif inspect.isfunction(member):
            yield name, signature(member)


def signature(value: Any) -> str:
    """As it is written: annotations are texts here, as the package postpones their evaluation."""
    found = inspect.signature(value)
    parameters = [one.replace(annotation=written(one.annotation)) for one in found.parameters.values()]
    found = found.replace(parameters=parameters, return_annotation=written(found.return_annotation))
    return ADDRESS.sub(r"\1", str(found))


class Written(str):
    """A text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def written(annotation: Any) -> Any:
    return Written(annotation) if isinstance(annotation, str) else annotation


def shown(value: Any) -> str:
    """A default; of a section its class, as its fields stand by themselves."""
    return f"{type(value).__name__}(...)" if isinstance(value, BaseModel) else ADDRESS.sub(r"\1", repr(value))


if __name__ == "__main__":
    RECORD.write_text("\n".join(public_api()) + "\n", encoding="utf-8")
    print(f"recorded in {RECORD}; review the difference before you commit it")
