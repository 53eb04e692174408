"""The scorecard: whether training helped, measured against initialisation, baselines and chance.

One row a measure: the run, its initialisation, a random initialisation, a baseline without a learned representation,
and chance. The difference run - init has a paired bootstrap interval over test items; where that contains 0, as shown
with three decimals, nothing is claimed. A measure without an interval (no test items, or from too few documents) is
"untested", however large its difference: it may be chance. Controls, which other measures are compared with (skill with
a wrong caption), are listed, but claimed neither as a gain nor as a loss. No accessor gives only the run's value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from openjepa.core.errors import UserError
from openjepa.core.json_files import Number, Written, read_json
from openjepa.core.tables import folding_table

if TYPE_CHECKING:
    from rich.table import Table

NETWORKS = ("run", "init", "random")
LEVEL = 0.95  # of all intervals
NAMED = 3  # measures that the sentence spells out
SHOWN_AS_ZERO = 0.0005  # a bound nearer to 0 is 0 in the three decimals that tables show


@dataclass(frozen=True)
class Measure:
    """One row of the scorecard; higher is better throughout."""

    values: dict[str, float]  # column -> value; "run", "init", "random" and those baselines that have one
    chance: float | None  # None where it is not known
    interval: tuple[float, float] | None  # 95 %, of run - init; None without test items, or of too few documents
    control: bool = False  # no gain or loss is claimed of it

    @property
    def run_minus_init(self) -> float:
        return self.values["run"] - self.values["init"]

    @property
    def verdict(self) -> str:
        """ "better" or "worse" if the whole interval lies on that side of 0, else "unclear".

        "untested" without an interval, and "control" if it does not measure the run's quality.
        """
        if self.control:
            return "control"
        if self.interval is None:
            return "untested"
        low, high = self.interval
        return "better" if low >= SHOWN_AS_ZERO else "worse" if high <= -SHOWN_AS_ZERO else "unclear"


class ScorecardRow(Written):
    """A row of a scorecard in JSON; all others of its values are those of baselines, by name."""

    __pydantic_extra__: dict[str, Number] = Field(init=False)  # ty: ignore[incompatible-mutable-override]
    run: Number
    init: Number
    random: Number
    chance: Number | None
    interval: Annotated[list[Number], Field(min_length=2, max_length=2)] | None
    control: bool


ScorecardFile = dict[str, ScorecardRow]


@dataclass(frozen=True)
class Scorecard:
    """All measures of one run, in the order of its tasks."""

    measures: dict[str, Measure]
    embedding: str = ""  # what the probes read, in words, where that is not obvious; not kept in JSON

    def to_json(self) -> dict[str, dict[str, Any]]:
        """{measure: its values by column ("run", "init", "random", baselines) and its other fields}.

        These are "chance", "run_minus_init", "interval" (or null) and "control".
        """
        return {
            name: {
                **measure.values,
                "chance": measure.chance,
                "run_minus_init": measure.run_minus_init,
                "interval": measure.interval and list(measure.interval),
                "control": measure.control,
            }
            for name, measure in self.measures.items()
        }

    @classmethod
    def read(cls, file: Path) -> Scorecard:
        """The scorecard in a JSON file of `evals/`. Raises UserError if it is damaged, or none."""
        return cls.from_json(read_json(file, ScorecardFile))

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, Any]]) -> Scorecard:
        """The inverse of `to_json`."""
        other = ("chance", "run_minus_init", "interval", "control")
        measures = {}
        for name, row in data.items():
            values = {key: value for key, value in row.items() if key not in other}
            interval = row["interval"] and tuple(row["interval"])
            measures[name] = Measure(values, row["chance"], interval, row["control"])
        return cls(measures)

    @classmethod
    def joined(cls, scorecards: Iterable[Scorecard]) -> Scorecard:
        """All measures of several scorecards of the same run. Raises UserError if two have the same name."""
        measures: dict[str, Measure] = {}
        embedding = ""
        for scorecard in scorecards:
            embedding = scorecard.embedding
            if twice := measures.keys() & scorecard.measures.keys():
                raise UserError(f"two tasks give a measure of the same name: {', '.join(sorted(twice))}; rename one")
            measures |= scorecard.measures
        return cls(measures, embedding)

    def columns(self) -> list[str]:
        """Networks and baselines that have a value in any row, in their order."""
        return list(dict.fromkeys(column for measure in self.measures.values() for column in measure.values))

    def better(self) -> list[str]:
        """Measures on which the run is above its own initialisation with the whole interval above 0."""
        return self._with("better")

    def worse(self) -> list[str]:
        """Measures on which the run is below its own initialisation, with the whole interval below 0."""
        return self._with("worse")

    def untested(self) -> list[str]:
        """Measures without test items (or of too few documents), so without an interval."""
        return self._with("untested")

    def sentence(self) -> str:
        """One line on whether training helped. It begins with HURT if more measures fell than rose significantly.

        One interval in twenty excludes 0 by chance; the sentence gives their expected number. Controls are not counted.
        """
        counted = [measure for measure in self.measures.values() if not measure.control]
        better = self.better()
        worse = self.worse()
        total = len(counted)
        rose = f"helped on {len(better)} of {total} measures: {self._examples(better)}"
        fell = f"HURT: below its own initialisation on {len(worse)} of {total} measures: {self._examples(worse)}"
        if better and worse:
            parts = [rose, fell] if len(better) > len(worse) else [fell, rose]
            if len(better) == len(worse):
                parts[0] = f"had mixed effects; it {parts[0]}"
        else:
            parts = [rose] if better else [fell] if worse else []
        if unclear := len(self._with("unclear")):
            parts.append(f"made no clear difference on {unclear} of {total}")
        if untested := self.untested():
            parts.append(f"moved {self._examples(untested)} with no or too few test items to tell whether by luck")
        if (better or worse) and (by_luck := round((1 - LEVEL) * total)):
            parts.append(f"luck alone would move about {by_luck}")
        for baseline in self.columns()[len(NETWORKS) :]:
            compared = [m for m in counted if baseline in m.values]
            ahead = sum(m.values[baseline] > m.values["run"] for m in compared)
            parts.append(f"{baseline} is above the run on {ahead} of {len(compared)}")
        return "training " + "; ".join(parts)

    def table(self) -> Table:
        """A table for the terminal: the best network of a row in bold, the difference with interval and verdict."""
        from rich.text import Text

        caption = "gain = run - init, with its 95 % paired bootstrap interval over test items (or their documents)"
        if any(measure.control for measure in self.measures.values()):
            caption += "; control: what other measures are read against, no gain or loss"
        if self.embedding:
            caption = f"probes read {self.embedding}\n{caption}"
        prefix = self._prefix()
        title = f"Did training help? ({prefix.rstrip('-')})" if prefix else "Did training help?"
        columns = self.columns()
        figures = (*columns, "chance", "gain", "95 %")
        table = folding_table(["measure"], figures, [""], title=title, caption=caption, rule=False)
        for name, measure in self.measures.items():
            best = max(measure.values[column] for column in NETWORKS)
            cells = [_cell(measure.values.get(column), column in NETWORKS, best) for column in columns]
            colour = {"better": "green", "worse": "red"}.get(measure.verdict, "default")
            difference = f"[{colour}]{measure.run_minus_init:+.3f}[/]"
            interval = "-" if measure.interval is None else "{:+.3f} {:+.3f}".format(*measure.interval)
            word = f"[{colour}]{measure.verdict}[/]"
            chance = _shown(measure.chance, 3)
            table.add_row(Text(name.removeprefix(prefix)), *cells, chance, difference, interval, word)
        return table

    def _with(self, verdict: str) -> list[str]:
        return [name for name, measure in self.measures.items() if measure.verdict == verdict]

    def _prefix(self) -> str:
        """The common prefix of all names, up to their last hyphen; the table shows it once ("synthetic-stories-")."""
        heads = {name[: name.rfind("-") + 1] for name in self.measures}
        return heads.pop() if len(heads) == 1 else ""

    def _examples(self, names: Sequence[str]) -> str:
        largest = sorted(names, key=lambda name: -abs(self.measures[name].run_minus_init))[:NAMED]
        shown = []
        for name in largest:
            measure = self.measures[name]
            short = name.removeprefix(self._prefix())
            init = measure.values["init"]
            run = measure.values["run"]
            shown.append(f"{short} {init:.2f} -> {run:.2f} (chance {_shown(measure.chance)})")
        return ", ".join(shown) + (", ..." if len(names) > NAMED else "")


def _shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _cell(value: float | None, network: bool, best: float) -> str:
    if value is None:
        return "-"
    return f"[bold]{value:.3f}[/bold]" if network and value == best else f"{value:.3f}"
