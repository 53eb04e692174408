"""Access to the Hugging Face hub, which may be unreachable: tested once, before any client connects.

The hub's clients retry for half a minute and log each try. So `reaching` tests first, for at most PATIENCE_S. If there
is no answer, the clients are set to offline: what is in their caches still works, and all else fails at once.

Importing this is cheap; the clients are imported on first use.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 2.0  # for an answer of the hub, of whatever kind
ABSENT_FOR_S = 60.0  # how long a hub that did not answer is not tested again
OFFLINE = "HF_HUB_OFFLINE is set"
REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")

answers: dict[str, tuple[float, str | None]] = {}  # by endpoint: when it was tested, and why it cannot be reached


def is_repository(name: str) -> bool:
    """Whether `name` may be a model of the hub ("owner/name" or "name"), judged by its form."""
    return REPOSITORY.fullmatch(name) is not None


def endpoint() -> str:
    """Address of the hub: HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def absence() -> str | None:
    """Why the hub cannot be reached, in a few words; None if it answers. Takes at most PATIENCE_S."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return OFFLINE
    tested_at, reason = answers.get(endpoint(), (float("-inf"), None))
    if tested_at == float("-inf") or (reason is not None and time.monotonic() - tested_at > ABSENT_FOR_S):
        reason = ask_hub()
        answers[endpoint()] = (time.monotonic(), reason)
    return reason


def ask_hub() -> str | None:
    """Test whether the hub gives any answer; see `absence`. In a thread, as a name look-up takes no time limit."""
    from huggingface_hub import get_session

    failures: list[str | None] = []

    def ask() -> None:
        try:
            get_session().head(endpoint(), timeout=PATIENCE_S, follow_redirects=False)
        except Exception as error:  # the client's own errors, by version of the library httpx's or requests'
            failures.append(_plain(error))
        else:
            failures.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return failures[0] if failures else f"no answer within {PATIENCE_S:g} s"


def _plain(error: Exception) -> str:
    if "timeout" in type(error).__name__.lower():
        return f"no answer within {PATIENCE_S:g} s"
    return re.sub(r"^\[Errno -?\d+\] ", "", " ".join(str(error).split())) or type(error).__name__


def has_model(name: str) -> bool:
    """Whether any file of the model `name` is in the hub's cache on this machine."""
    return _has_snapshot("models", name)


def has_dataset(name: str) -> bool:
    """Whether any part of the data set `name` is in the caches of this machine."""
    from huggingface_hub import constants

    prepared = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
    return _has_snapshot("datasets", name) or (prepared / name.replace("/", "___")).is_dir()


def _has_snapshot(kind: str, name: str) -> bool:
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())


def failure(error: Exception, what: str) -> str:
    """Why a model or data set of the hub (`what`) could not be loaded, in one line: the hub's absence, or `error`."""
    reason = absence()
    if reason is not None:
        return f"the hub ({endpoint()}) cannot be reached ({reason}), and this machine has no copy of that {what}"
    if type(error).__name__ in ("RepositoryNotFoundError", "DatasetNotFoundError"):
        return f"the hub ({endpoint()}) has no such {what}, or it is private (set HF_TOKEN)"
    lines = str(error).strip().splitlines()
    return f"the hub ({endpoint()}) gave no such {what} ({type(error).__name__}: {' '.join(lines[:1])[:200]})"


@contextmanager
def reaching(bars: bool = True) -> Generator[None]:
    """Within the block, the hub's clients use the hub if it answers, else only their caches; they log errors only.

    `bars=False` also hides the progress of downloads.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    with ExitStack() as restored:
        if absence() is not None:
            restored.enter_context(_changed(constants, "HF_HUB_OFFLINE", True))
        if not bars and not are_progress_bars_disabled():
            restored.callback(enable_progress_bars)
            disable_progress_bars()
        level = logging.get_verbosity()
        restored.callback(logging.set_verbosity, level)
        logging.set_verbosity_error()
        yield


@contextmanager
def _changed(module: Any, name: str, value: Any) -> Generator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
