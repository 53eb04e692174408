"""Progress of a sweep: a bar with the time left in a terminal, else occasional lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_LINES = 10  # approximate number of lines without a terminal


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
