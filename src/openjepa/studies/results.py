"""Results of a study from its finished cells: measures and cost of each arm, and its differences to the first one.

Skill and probes are compared, not training losses: losses of different tasks have different units. Skill is relative to
each arm's own targets, so it is compared within a recipe only, and even there arms with different targets can be
compared only by probes.

Measures of a kind (the k-NN accuracies of all factors, say) are also averaged, item by item, into one headline each.
Headlines are few, so that a correction for many comparisons keeps its power; all other measures are in results.json
with a separate correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from openjepa.core.rundir import write_csv, write_json
from openjepa.core.seeding import generator_for
from openjepa.evals.scores import Score
from openjepa.evals.statistics import Difference, difference, holm, seeds_difference
from openjepa.studies import scoring
from openjepa.studies.cells import Arm, Cell
from openjepa.studies.scoring import RUN, START, Scored, Scores

PROBES = ("knn", "logistic", "attentive")  # endings of measures that are averaged over tasks
SKILL = "skill"
FACTS = ("train_s", "tokens", "flops", "steps")  # averaged over seeds
RESULTS = "results.json"
TABLE = "results.csv"
FIGURE = "results.png"


@dataclass(frozen=True)
class ArmResult:
    """One arm: its finished cells by seed, and the reasons of those that stopped."""

    arm: Arm
    scored: dict[int, Scored]
    stopped: dict[int, str]

    def measures(self, column: str = RUN) -> dict[str, list[Score]]:
        """Measure or headline -> one score a seed."""
        by_seed = [with_headlines(scored.columns[column]) for scored in self.scored.values()]
        return {name: [scores[name] for scores in by_seed] for name in (by_seed[0] if by_seed else ())}

    def mean(self, fact: str) -> float | None:
        """Mean over seeds of one of FACTS or of skill; None where there is none."""
        values = [scored.facts[fact] for scored in self.scored.values() if scored.facts[fact] is not None]
        return fmean(values) if values else None

    @property
    def verdicts(self) -> str:
        """The verdicts of all seeds, e.g. "healthy" or "healthy, 1 collapsed (complete)"."""
        words = [_verdict(scored.facts) for scored in self.scored.values()] + ["stopped"] * len(self.stopped)
        counts = {word: words.count(word) for word in dict.fromkeys(sorted(words, key=words.count, reverse=True))}
        if len(counts) == 1:
            return words[0]
        return ", ".join(f"{count} {word}" for word, count in counts.items())


@dataclass(frozen=True)
class Compared:
    """The difference of one arm to the first one on one measure."""

    arm: str
    measure: str
    headline: bool
    found: Difference
    p_seeds_holm: float
    p_items_holm: float | None


def collect(cells: Sequence[Cell]) -> list[ArmResult]:
    """Finished cells by arm, in the order of the arms."""
    arms = {cell.arm.label: ArmResult(cell.arm, {}, {}) for cell in cells}
    for cell in cells:
        result = arms[cell.arm.label]
        if (reason := cell.stopped) is not None:
            result.stopped[cell.seed] = reason
        elif cell.finished:
            result.scored[cell.seed] = scoring.read(cell.scores_file)
    return list(arms.values())


def headlines(names: Sequence[str]) -> dict[str, list[str]]:
    """Headline -> the measures it is the mean of; a measure that is no probe is its own headline."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        kind = name.rpartition("_")[2]
        grouped.setdefault(f"mean {kind}" if kind in PROBES else name, []).append(name)
    return {members[0] if len(members) == 1 else headline: members for headline, members in grouped.items()}


def with_headlines(scores: Scores) -> Scores:
    """The scores, and their headlines where these are means; only tasks with the same number of items have one."""
    means = {}
    for headline, members in headlines(list(scores)).items():
        parts = [scores[name] for name in members]
        if len(parts) > 1 and len({len(part.items) for part in parts}) == 1:
            items = np.mean([part.items for part in parts], axis=0)  # [N]
            chance = fmean(part.chance for part in parts if part.chance is not None)
            known = [part.asked for part in parts if part.asked is not None]
            means[headline] = Score(items, chance, asked=" ".join(known) if len(known) == len(parts) else None)
    return {**means, **scores}


def headline_names(results: Sequence[ArmResult]) -> list[str]:
    """Headlines that every arm with a finished cell has; a control is none."""
    excluded = controls(results)
    shared = [name for name in shared_measures(results) if name not in excluded]
    known = headlines([name for name in shared if not name.startswith("mean ")])
    return [name for headline, members in known.items() for name in ([headline] if headline in shared else members)]


def shared_measures(results: Sequence[ArmResult]) -> list[str]:
    """Measures and headlines of the same test items in every arm with a finished cell, in the first one's order."""
    different = asked_apart(results)
    return [name for name in _common(results) if name not in different]


def controls(results: Sequence[ArmResult]) -> set[str]:
    """Measures that are references for others (skill with a wrong caption): listed, but not compared."""
    return {name for result in results for name, scores in result.measures().items() if scores[0].control}


def asked_apart(results: Sequence[ArmResult]) -> list[str]:
    """Measures of all arms on different test items (other data, another mask), which are not compared."""
    finished = [(result.scored, result.measures()) for result in results if result.scored]
    different = []
    for name in _common(results):
        digests: dict[int, set[str]] = {}  # seed -> digests of its arms' test items, where known
        for seeds, measures in finished:
            for seed, score in zip(seeds, measures[name], strict=True):
                digests.setdefault(seed, set()).update([score.asked] if score.asked else [])
        if any(len(of_seed) > 1 for of_seed in digests.values()):
            different.append(name)
    return different


def _common(results: Sequence[ArmResult]) -> list[str]:
    finished = [result.measures() for result in results if result.scored]
    return [name for name in finished[0] if all(name in other for other in finished)] if finished else []


def compared(results: Sequence[ArmResult]) -> list[Compared]:
    """Differences of every arm to the first one, on every shared measure, over the seeds that both have finished.

    Also on skill, between arms of the same recipe. Headlines are corrected together, and so are all other measures.
    """
    base, *others = results
    excluded = controls(results)
    leading = (SKILL, *headline_names(results))
    shared = [name for name in shared_measures(results) if name not in excluded]
    rows: list[tuple[str, str, Difference]] = []
    for result in others:
        seeds = [seed for seed in result.scored if seed in base.scored]
        if not seeds:
            continue
        pairs = [(result.scored[seed], base.scored[seed]) for seed in seeds]
        label = result.arm.label
        skills = [(a.facts[SKILL], b.facts[SKILL]) for a, b in pairs]
        same_recipe = result.arm.recipe == base.arm.recipe
        if same_recipe and all(value is not None for pair in skills for value in pair):
            by_seed = np.array([a - b for a, b in skills])
            rows.append((label, SKILL, seeds_difference(by_seed, generator_for(0, "study", SKILL))))
        sides = [[with_headlines(side.columns[RUN]) for side in pair] for pair in pairs]
        for name in shared:
            scores = [[side[name] for side in pair] for pair in sides]
            a, b = zip(*scores, strict=True)
            rows.append((label, name, difference(a, b, generator_for(0, "study", name))))
    headline_rows = [row for row in rows if row[1] in leading]
    other_rows = [row for row in rows if row[1] not in leading]
    return [*_corrected(headline_rows, True), *_corrected(other_rows, False)]


def _corrected(rows: Sequence[tuple[str, str, Difference]], headline: bool) -> list[Compared]:
    over_seeds = holm([one.p_seeds for _, _, one in rows])
    p_items = {number: one.p_items for number, (_, _, one) in enumerate(rows) if one.p_items is not None}
    over_items = dict(zip(p_items, holm(list(p_items.values())), strict=True))
    return [
        Compared(arm, name, headline, one, over_seeds[number], over_items.get(number))
        for number, (arm, name, one) in enumerate(rows)
    ]


def summary(results: Sequence[ArmResult], about: Mapping[str, Any], baselines: Scored) -> dict[str, Any]:
    """The results of a study as one JSON object; see `_arm` and `_compared` for its parts."""
    return {
        **about,
        "base": results[0].arm.label,
        "headlines": [SKILL, *headline_names(results)],
        "arms": [_arm(result) for result in results],
        "differences": [_compared(row) for row in compared(results)],
        "asked_apart": asked_apart(results),
        "controls": sorted(controls(results)),
        "baselines": {
            name: {measure: found.value for measure, found in with_headlines(scores).items()}
            for name, scores in baselines.columns.items()
        },
    }


def write(out: Path, results: Sequence[ArmResult], found: Mapping[str, Any]) -> None:
    """Write results.json, and results.csv with one row a cell."""
    write_json(out / RESULTS, found)
    write_csv(out / TABLE, [row for result in results for row in _rows(result)])


def _arm(result: ArmResult) -> dict[str, Any]:
    starts = result.measures(START)
    return {
        "label": result.arm.label,
        "recipe": result.arm.recipe,
        "changed": result.arm.changed,
        "verdict": result.verdicts,
        SKILL: result.mean(SKILL),
        "skill_by_seed": {seed: scored.facts[SKILL] for seed, scored in result.scored.items()},
        "measures": {
            name: {
                "mean": fmean(score.value for score in scores),
                "by_seed": [score.value for score in scores],
                "init": fmean(score.value for score in starts[name]),
                "chance": scores[0].chance,
            }
            for name, scores in result.measures().items()
        },
        **{fact: result.mean(fact) for fact in FACTS},
        "seeds": list(result.scored),
        "stopped": result.stopped,
    }


def _compared(row: Compared) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "measure": row.measure,
        "headline": row.headline,
        **asdict(row.found),
        "p_seeds_holm": row.p_seeds_holm,
        "p_items_holm": row.p_items_holm,
    }


def _rows(result: ArmResult) -> list[dict[str, Any]]:
    rows = []
    for seed, scored in result.scored.items():
        facts = {name: scored.facts[name] for name in (SKILL, "verdict", *FACTS)}
        values = {name: score.value for name, score in with_headlines(scored.columns[RUN]).items()}
        rows.append({"arm": result.arm.label, "recipe": result.arm.recipe, "seed": seed, **facts, **values})
    for seed in result.stopped:
        rows.append({"arm": result.arm.label, "recipe": result.arm.recipe, "seed": seed, "verdict": "stopped"})
    return rows


def _verdict(facts: Mapping[str, Any]) -> str:
    return f"{facts['verdict']} ({facts['kind']})" if facts["kind"] else facts["verdict"]
