"""The networks that an evaluation compares, built one at a time to save memory.

The run itself stays in memory; of its initialisation and the random network only the one used last does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping

from openjepa.core.experiment import Experiment
from openjepa.core.method import Method


class Networks(Mapping[str, Experiment]):
    """`networks[name]` builds the experiment of that name, unless it is the one built last. `run` is not built here."""

    def __init__(self, run: Callable[[], Experiment], others: Mapping[str, Callable[[], Experiment]]) -> None:
        self._run = run
        self._others = dict(others)
        self._name = ""  # of the network in memory
        self._held: Experiment | None = None

    def __getitem__(self, name: str) -> Experiment:
        if name == "run":
            return self._run()
        if self._name != name or self._held is None:
            build = self._others[name]
            self._name = name
            self._held = None
            gc.collect()  # an experiment's parts may refer to each other
            self._held = build()
        return self._held

    def __iter__(self) -> Iterator[str]:
        return iter(("run", *self._others))

    def __len__(self) -> int:
        return 1 + len(self._others)


class Methods(Mapping[str, Method]):
    """The methods of some networks, by the same names."""

    def __init__(self, networks: Mapping[str, Experiment]) -> None:
        self._networks = networks

    def __getitem__(self, name: str) -> Method:
        return self._networks[name].method

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)
