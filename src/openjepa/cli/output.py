"""Output of the command line: results to stdout, everything else to stderr, from one process only."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openjepa.core.remarks import remark

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 140  # columns without a terminal, so that tables in logs are not cut at 80

# exit codes: a check failed; a user error; Ctrl-C
FAILED = 1
USAGE = 2
INTERRUPTED = 130

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


Long = Annotated[
    Literal["windows", "cut"],
    typer.Option("--long", help="Texts beyond the encoder's length: windows = read whole, cut = the first part only."),
]


class Interrupted(Exception):
    """A signal, with a message on how to resume. (typer turns a KeyboardInterrupt into a bare exit code.)"""

    def __init__(self, message: str, exit_code: int = INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def stdout() -> Console:
    """The console for results."""
    return _console(stderr=False)


def stderr() -> Console:
    """The console for progress and remarks."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def print_json(value: Any) -> None:
    """Print one JSON document on stdout. NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=float))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def fail(message: str, code: int) -> int:
    """Print one line on stderr; returns the exit code."""
    remark(message)
    return code


def version(wanted: bool) -> None:
    """Callback of --version."""
    if wanted:
        from openjepa import __version__

        print(f"openjepa {__version__}")
        raise typer.Exit
