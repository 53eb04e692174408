"""Errors that a user can fix. The command line prints them in one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class UserError(Exception):
    """Something outside the code is wrong. The message names the field or file, and how to fix it."""


class ConfigError(UserError):
    """One or more configuration values are wrong; the message lists all of them."""


class WriteError(UserError):
    """The disk did not take a file (full, read-only, over a quota); what was saved before is intact."""


class DamageError(UserError):
    """A file is not what was written: its checksum is another, or it is gone."""


class ReadingWarning(UserWarning):
    """Inputs were read, but not as their owner may expect: cut, empty, or in words that the tokenizer lacks."""


class TrainingStopped(UserError):
    """Training ended early on purpose (non-finite gradient, collapse); what was saved is intact."""


class NonFinite(TrainingStopped):
    """A gradient or a weight is NaN or infinite. `batches` are those of that step: {"keys": [...], "loss": ...}."""

    def __init__(
        self, message: str, step: int, batches: Sequence[Mapping[str, Any]] = (), lr_factor: float = 1.0
    ) -> None:
        super().__init__(message)
        self.step = step
        self.batches = list(batches)
        self.lr_factor = lr_factor  # factor of the learning rate that it happened with


class StoppedBySignal(KeyboardInterrupt):
    """A signal asked training to stop; its step is finished and saved. `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; what kind of error it is, if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
