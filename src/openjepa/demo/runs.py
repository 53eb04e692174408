"""The runs on one page: their names, and their panels once they have a checkpoint.

All runs are opened before the page is served, so that what cannot be opened is known at once. A run without a
checkpoint is looked at again whenever the page is loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.demo.panels import Panel, panels_of
from openjepa.demo.training import Training
from openjepa.training import checkpoint


class ShownRun:
    """A run on the page. Making it opens its panels if it has a checkpoint; raises UserError if it cannot."""

    def __init__(self, run: Run, name: str) -> None:
        self.run = run
        self.name = name
        self.training = Training(run)
        self.step: int | None = None  # of the checkpoint that the panels use
        self.panels: list[Panel] = []
        self._lock = threading.Lock()
        self.open()

    def open(self) -> bool:
        """Open the panels if that was not done and there is a checkpoint; returns whether they are open."""
        with self._lock:
            if self.step is None and checkpoint.finished(self.run.folder.checkpoints):
                try:
                    step = checkpoint.newest_step(self.run.folder.checkpoints)
                    self.run.require_data()
                    self.panels = panels_of(self.run)
                except UserError as error:
                    raise UserError(f"{self.run.path} cannot be shown: {error}") from None
                self.step = step
            return self.step is not None


def names_of(paths: Sequence[Path]) -> list[str]:
    """The name of each folder, with as many of the folders above it as tell it from others of that name."""
    parts = [path.resolve().parts for path in paths]
    names = []
    for own in parts:
        depth = 1
        while depth < len(own) and sum(other[-depth:] == own[-depth:] for other in parts) > 1:
            depth += 1
        names.append("/".join(own[-depth:]))
    return names
