"""Progress of a study: a bar over all steps of all cells in a terminal, and a line for each finished cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from rich import progress as bars
from rich.console import Console
from rich.text import Text

from openjepa.core.json_files import read_json
from openjepa.studies.cells import Cell


class StudyProgress:
    """Shows the progress of `running.run_cells`; nothing without a console."""

    def __init__(self, cells: Sequence[Cell], console: Console | None) -> None:
        self.console = console
        self.cells = cells
        self.done = {cell.path: cell.steps if cell.finished else cell.done_steps for cell in cells}
        self.ended = sum(cell.finished for cell in cells)
        columns = (bars.BarColumn(bar_width=30), bars.TextColumn("{task.description}"), bars.TimeRemainingColumn())
        self._bar = bars.Progress(*columns, console=console, transient=True)
        self._task: Any = None

    def on_step(self, cell: Cell, step: int) -> None:
        self.done[cell.path] = max(step, self.done[cell.path])
        self._show(f"{self._so_far()}, {_name(cell)}: step {step}/{cell.steps}")

    def on_end(self, cell: Cell) -> None:
        self.done[cell.path] = cell.steps
        self.ended += 1
        self._show(self._so_far())
        if self.console is not None:
            line = f"cell {self.ended} of {len(self.cells)}: {_name(cell)}: {outcome(cell)}"
            self.console.print(Text(line), highlight=False, soft_wrap=True)

    def _so_far(self) -> str:
        return f"{self.ended} of {len(self.cells)} cells done"

    def _show(self, text: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=sum(self.done.values()), description=text)

    def __enter__(self) -> Self:
        if self.console is not None and self.console.is_terminal:
            self._bar.start()
            total = sum(cell.steps for cell in self.cells)
            self._task = self._bar.add_task(self._so_far(), total=total)
            self._show(self._so_far())
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def outcome(cell: Cell) -> str:
    """The outcome of a finished cell in a few words."""
    if (reason := cell.stopped) is not None:
        return f"stopped: {reason}"
    facts = read_json(cell.scores_file)["facts"]
    skill = "" if facts["skill"] is None else f", skill {facts['skill']:.2f}"
    return f"{facts['verdict']}{skill}, {facts['train_s']:.0f} s"


def _name(cell: Cell) -> str:
    return f"{cell.arm.label}, seed {cell.seed}"
