"""Turn a name, a dotted path or a file into a recipe module: 't_jepa', 'my_package.my_recipe', './my_recipe.py'.

Built-in recipes in a folder have it in their name: 'baselines/mlm'.

Smaller parts (objectives, maskers, probes) are named the same way: 'package.module:function'.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from openjepa.core.errors import UserError, did_you_mean
from openjepa.core.trust import require_trusted

BUILT_IN = "openjepa.recipes"


def built_in_recipes() -> list[str]:
    """Names of the recipes that ship with OpenJEPA, without importing them; those in folders last."""
    return sorted(_modules_in(_recipes_folder()), key=lambda name: ("/" in name, name))


def _modules_in(folder: Path, prefix: str = "") -> Iterator[str]:
    for module in pkgutil.iter_modules([str(folder)]):
        if module.ispkg:
            yield from _modules_in(folder / module.name, f"{prefix}{module.name}/")
        else:
            yield prefix + module.name


def _recipes_folder() -> Path:
    spec = importlib.util.find_spec(BUILT_IN)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def recipe_summary(name: str) -> str:
    """First line of a built-in recipe's docstring, read from its source without importing it."""
    return (ast.get_docstring(_parsed(name)) or "").partition("\n")[0]


def functions_of(name: str) -> list[str]:
    """Functions that a built-in recipe defines, read from its source without importing it."""
    return [node.name for node in _parsed(name).body if isinstance(node, ast.FunctionDef)]


def _parsed(name: str) -> ast.Module:
    return ast.parse((_recipes_folder() / f"{name}.py").read_text(encoding="utf-8"))


def presets(recipe: str) -> dict[str, Path]:
    """Configuration files that ship with a built-in recipe, by preset name."""
    folder = Path(str(resources.files("openjepa") / "configs" / recipe))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))} if folder.is_dir() else {}


def locate_recipe(name: str) -> ModuleType:
    """The recipe module behind `name`. Raises UserError for an unknown name, a missing file, no `build`, or code
    that only a run folder names (`core.trust`).
    """
    known = built_in_recipes()
    if name not in known:
        require_trusted(name)
    if name in known:
        module = importlib.import_module(f"{BUILT_IN}.{name.replace('/', '.')}")
    elif name.endswith(".py"):
        module = _from_file(Path(name))
    elif "/" in name or name.startswith("."):
        raise UserError(f"recipe {name!r} is no module; a recipe file ends in .py, a configuration goes to --config")
    elif "." in name:
        module = _import(name, f"recipe {name!r}")
    else:
        raise UserError(
            f"unknown recipe {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}; "
            "or give a .py file or a dotted path"
        )
    for needed in ("Config", "build"):
        if not hasattr(module, needed):
            raise UserError(
                f"recipe {name!r} has no `{needed}`; a recipe defines `Config` and `build(config, context)`"
            )
    return module


class Wanted(NamedTuple):
    """How named functions of a kind are called, and what they return; in words, for whom has written another."""

    arguments: tuple[str, ...]
    returns: str
    is_right: Callable[..., bool]  # (result, *arguments) -> whether it is one

    def __str__(self) -> str:
        return f"f({', '.join(self.arguments)}) -> {self.returns}"


@dataclass(frozen=True)
class Named:
    """A user's function whose results are looked at."""

    what: str  # the kind of function, and its name
    function: Callable[..., Any]
    wanted: Wanted

    def __call__(self, *arguments: Any) -> Any:
        """Raises UserError if the result is not what is wanted."""
        found = self.function(*arguments)
        if not self.wanted.is_right(found, *arguments):
            shape = f" of shape {list(found.shape)}" if hasattr(found, "shape") else ""
            raise UserError(f"{self.what} returned a {type(found).__name__}{shape}; wanted is {self.wanted}")
        return found


def named_function(what: str, name: str, known: Mapping[str, Any], wanted: Wanted) -> Any:
    """`known[name]`, or the function behind "package.module:function".

    Raises UserError for an unknown name, and for a function that cannot be called as `wanted`.
    """
    if name in known:
        return known[name]
    if ":" in name:
        function = locate_function(name)
        if function in known.values():
            return function
        _require_callable_as(wanted, f"{what} {name!r}", function)
        return Named(f"{what} {name!r}", function, wanted)
    raise UserError(
        f"unknown {what} {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}; "
        "or give package.module:function"
    )


def _require_callable_as(wanted: Wanted, what: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some functions written in C
        return
    try:
        signature.bind(*wanted.arguments)
    except TypeError as error:
        raise UserError(f"{what} takes {signature} ({error}); wanted is {wanted}") from None


def locate_function(name: str) -> Callable[..., Any]:
    """The function behind "package.module:function". Raises UserError naming what is missing."""
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UserError(f"{name!r} is not of the form package.module:function")
    require_trusted(name)
    module = _import(module_name, repr(name))
    function = getattr(module, function_name, None)
    if function is None:
        raise UserError(f"{name!r}: no function {function_name!r} in it{did_you_mean(function_name, vars(module))}")
    if not callable(function):
        raise UserError(f"{name!r} is no function but a {type(function).__name__}")
    return function


def _import(name: str, what: str) -> ModuleType:
    if name.startswith("."):
        raise UserError(f"{what}: a module's full name is needed, not a relative one")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{what}: no module named {error.name!r} can be imported") from error


def _from_file(path: Path) -> ModuleType:
    """The module of a recipe file: one for each path and content, so that its classes are the same at each look-up."""
    if not path.is_file():
        raise UserError(f"no recipe file at {path}")
    code = path.read_bytes()
    digest = hashlib.blake2b(str(path.resolve()).encode() + b"\0" + code, digest_size=8).hexdigest()
    name = f"openjepa_recipe_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
