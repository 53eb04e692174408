"""Progress of what takes long beside training: bars with the time left in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from openjepa.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_LINES = 10  # approximate number of lines without a terminal


class RowProgress:
    """Counts rows for the bar of `row_progress`; a speed is of the rows that were made since it was last restarted."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar = bar
        self._task = task
        self.restart()

    def restart(self) -> None:
        """What was counted so far was there before: it says nothing of the speed."""
        self._began = time.perf_counter()
        self._encoded = 0

    def add(self, rows: int, encoded: int | None = None) -> None:
        """Count rows, and how many texts were encoded for them (default: one a row)."""
        self._encoded += rows if encoded is None else encoded
        rate = self._encoded / max(time.perf_counter() - self._began, 1e-9)
        self._bar.update(self._task, advance=rows, rate=rate)


@contextmanager
def row_progress(console: Console, what: str, count: Callable[[], int | None]) -> Generator[RowProgress]:
    """A bar of `what` ("documents"), with texts a second and the time left.

    `count` tells how many there are, None where that is not known; without a terminal nobody asks.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    speed = TextColumn(what + ", {task.fields[rate]:,.0f} texts a second")
    columns = (BarColumn(None), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield RowProgress(bar, bar.add_task("", total=count() if console.is_terminal else None, rate=0.0))


def documents_in(overrides: Sequence[str]) -> int | None:
    """About how many documents `adapt` and `index` will read; None where only reading would tell."""
    from openjepa.adaptation.adapt import source_of
    from openjepa.adaptation.adapted import Config
    from openjepa.core.base_config import names_files
    from openjepa.encoding.rows import count_rows

    try:
        data = source_of(Config.load({}, overrides)).data
        is_counted = names_files(data.source) and data.join == "none"
        return count_rows(data.source, data.txt) if is_counted else None
    except UserError:  # what is wrong is said by the verb that reads them
        return None


class ProbeProgress:
    """Called as (probes done, number of probes, name of the next one), before each probe."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Any = None
        self._task: Any = None
        self._began = time.perf_counter()
        self._printed = 0

    def __call__(self, done: int, total: int, what: str) -> None:
        if self._bar is not None:
            text = f"probe {done + 1} of {total}: {what}"
            self._bar.update(self._task, completed=done, total=total, description=text)
        elif done == 0 or done - self._printed >= total / PLAIN_LINES:
            self._printed = done
            self.console.print(f"{done} of {total} probes done{self._left(done, total)}, next: {what}", markup=False)

    def _left(self, done: int, total: int) -> str:
        if not done:
            return ""
        left_s = (time.perf_counter() - self._began) / done * (total - done)
        return f", about {left_s:.0f} s left"

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            from rich import progress as bars

            columns = (bars.BarColumn(bar_width=30), bars.TextColumn("{task.description}"), bars.TimeRemainingColumn())
            self._bar = bars.Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("reading the latents of every layer", total=None)
            self._bar.start()
        else:
            self.console.print("probing every encoder, layer and pooling; reading their latents first", markup=False)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
