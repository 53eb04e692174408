"""Which code a run folder may name: a folder of a stranger is data, and opening it must run nothing of his.

A run may name code outside the package: a recipe file or module, or a "package.module:function" in a setting. What is
read from a folder is not trusted; what a user has typed, and what he has said to trust, is. Names are looked up in
`core.locate`, which asks here before it imports anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError

OWN = "openjepa."
_trusted: set[str] = set()  # in this process
_untrusted: set[str] = set()
_everything: list[bool] = []  # not empty = all code is trusted


def trust(names: Iterable[str]) -> None:
    """Let these names be imported, whoever names them later."""
    _trusted.update(names)


def trust_everything() -> None:
    """Let every run of this process import the code it names."""
    _everything.append(True)


def trusts_everything() -> bool:
    """Whether `trust_everything` was called."""
    return bool(_everything)


def distrust(names: Iterable[str]) -> None:
    """Do not import these names, unless they are trusted. Modules of the package itself are."""
    _untrusted.update(name for name in names if ":" in name or not name.startswith(OWN))


class UntrustedCode(UserError):
    """A run names code that nobody has said to trust."""


def require_trusted(name: str) -> None:
    """Raises UntrustedCode for a name that only a run folder has given."""
    if name in _untrusted and name not in _trusted and not _everything:
        raise UntrustedCode(
            f"this run names code of its own, {_described(name)}; nothing of it was run. Read it, and if you trust it, "
            "open the run with --trust-code (in Python: trust_code=True)"
        )


def names_in(values: Any) -> Iterator[str]:
    """Every string in settings that could name a function."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from names_in(value)
    elif isinstance(values, str) and ":" in values:
        yield values


def _described(name: str) -> str:
    path = Path(name)
    if name.endswith(".py") and path.is_file():
        return f"{path} ({len(path.read_bytes().splitlines())} lines)"
    return repr(name)
