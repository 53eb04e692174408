"""Progress of a run. Schedules, EMA momentum and weights that grow late in a run are pure functions of it."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """Where a run is: the number of the step that is taken, from 0, and of steps in total.

    Hooks and health checks come after a step: for them `step` is how many are done. A tuple, as Fabric takes frozen
    dataclasses apart.
    """

    step: int
    total_steps: int

    @property
    def fraction(self) -> float:
        """Part of the run that is done, in [0, 1]."""
        return min(1.0, self.step / max(1, self.total_steps))


START = Progress(0, 1)
