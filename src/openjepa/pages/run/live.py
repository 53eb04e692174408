"""The page of a run that is still training, rewritten after each health check, only from the log files.

It is a hook: it only reads, and takes some milliseconds a check. Its first error is reported; training continues.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openjepa.core.method import StepOutput
from openjepa.core.progress import Progress
from openjepa.core.rundir import RunDir
from openjepa.pages.run.page import live_page
from openjepa.pages.writing import PAGE, write_page


class LiveReport:
    """Keeps `report.html` in a run folder up to date. `on_failure` is called with the first error."""

    def __init__(self, folder: Path, on_failure: Callable[[str], None]) -> None:
        self.run = RunDir(folder)
        self.on_failure = on_failure
        self._drawn = 0  # bytes of health.jsonl when the page was written
        self._failed = False

    def __call__(self, progress: Progress, output: StepOutput, stats: dict[str, float]) -> None:
        try:
            size = self.run.health.stat().st_size if self.run.health.exists() else 0
            if size != self._drawn:
                write_page(live_page(self.run.path), self.run.path / PAGE)
                self._drawn = size
        except Exception as error:  # a page must never end a run: the disk may be full, the file locked
            if not self._failed:
                self._failed = True
                self.on_failure(f"the live report cannot be written: {error}")
