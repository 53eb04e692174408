"""compare: train recipes on the same data and encoder, with the same budget and seeds.

All arms use the data, tokenizer and encoder of the first; settings of a method (masks, learning rate, batches) are
kept. The budget decides the steps of each arm: equal tokens, equal FLOPs (a few real batches are counted, see `costs`)
or equal minutes of training on this machine (a few real steps are timed). Steps are fixed before anything is trained
and kept in plan.json, so that schedules are complete and a resumed study does not change them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from openjepa.core.configure import configure
from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json
from openjepa.core.rundir import default_folder, write_json
from openjepa.evals.suite_file import Suite
from openjepa.studies import costs
from openjepa.studies.cells import Arm, cells_of, processes_for, threads_of, trains_on_gpu
from openjepa.studies.study import conduct
from openjepa.studies.table import amount
from openjepa.studies.trial import built

SHARED = ("data", "tokenizer", "encoder")  # sections of a configuration that all arms have in common
UNITS = ("tokens", "flops", "minutes")
PLAN = "plan.json"


@dataclass(frozen=True)
class Budget:
    """The training budget of every arm."""

    unit: str  # one of UNITS
    amount: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse "tokens=2e6", "flops=1e12" or "minutes=3". Raises UserError for anything else."""
        unit, _, number = text.partition("=")
        try:
            budget = cls(unit.strip(), float(number))
        except ValueError:
            budget = cls("", 0.0)
        if budget.unit not in UNITS or not 0 < budget.amount < float("inf"):
            raise UserError(f"--budget {text}: write tokens=2e6, flops=1e12 or minutes=3, with a number above 0")
        return budget


def compare(
    words: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    budget: str | None = None,
    seeds: int = 3,
    out: str | Path | None = None,
    jobs: int | None = None,
    console: Console | None = None,
    suite: Suite | None = None,
) -> dict[str, Any]:
    """Train recipes with the same budget, score all cells equally, and compare each with the first.

    Args:
        words: recipes, each optionally with a preset and settings: "t_jepa:small+regularizer.name=sigreg".
        overrides: "key=value" for all arms.
        budget: "tokens=N", "flops=N" or "minutes=N"; default: the tokens of the first arm's steps.
        seeds, out, jobs, console, suite: as for `ablation.ablate`; `out` defaults to `runs/compare-<time>`.

    Returns the content of results.json. Raises UserError for mistakes before anything is trained.
    """
    wanted = None if budget is None else Budget.parse(budget)
    arms = comparison_arms(words, overrides)
    folder = Path(out) if out else default_folder("compare")
    at_a_time = processes_for(cells_of(arms, seeds, folder), jobs)
    shared, arms = within_budget(arms, wanted, folder, console, at_a_time)
    about = {"kind": "compare", "recipes": list(words), "settings": list(overrides), "budget": asdict(shared)}
    return conduct(arms, seeds, folder, jobs, about, console, suite)


def comparison_arms(words: Sequence[str], overrides: Sequence[str]) -> list[Arm]:
    """One arm a word, with the first one's data, tokenizer and encoder. Raises UserError or ConfigError."""
    if len(words) < 2:
        raise UserError("give at least two recipes to compare: openjepa compare t_jepa baselines/mlm")
    if len(set(words)) < len(words):
        raise UserError(f"an arm is given twice: {' '.join(words)}")
    arms: list[Arm] = []
    for word in words:
        recipe, preset, settings = read_arm(word)
        _, config = configure(recipe, preset, None, [*overrides, *settings])
        if arms:
            for key in settings:
                if (section := config.full_key(key.partition("=")[0]).partition(".")[0]) in SHARED:
                    raise UserError(f"{word}: {section} is the same for all arms; set it as {key}, apart from the arm")
            config = _with_shared(word, config, arms[0])
        arms.append(Arm(word, recipe, config))
    return arms


def read_arm(word: str) -> tuple[str, str | None, list[str]]:
    """(recipe, preset or None, settings) of "recipe:preset+key=value+key=value"."""
    head, *settings = word.split("+")
    recipe, _, preset = head.partition(":")
    if bad := next((item for item in settings if "=" not in item), None):
        raise UserError(f"{word}: {bad!r} is not of the form key=value")
    return recipe, preset or None, settings


def within_budget(
    arms: Sequence[Arm], budget: Budget | None, out: Path, console: Console | None, at_a_time: int = 1
) -> tuple[Budget, list[Arm]]:
    """The budget, and the arms with the steps that it allows, from `out`/plan.json where they are known.

    Minutes are timed with the threads of a cell when so many are trained at a time.
    Raises UserError if that folder was planned with another budget.
    """
    file = out / PLAN
    plan = read_json(file) if file.exists() else {"steps": {}}
    if budget is None:
        budget = Budget(**plan["budget"]) if "budget" in plan else Budget("tokens", _own_tokens(arms[0]))
    if plan.setdefault("budget", asdict(budget)) != asdict(budget):
        raise UserError(f"{out} was planned with another --budget ({plan['budget']}); choose another --out")
    planned = []
    for arm in arms:
        key = _digest(arm)
        if key not in plan["steps"]:
            plan["steps"][key] = _steps(arm, budget, threads_of(arm.config.train, at_a_time))
        steps = plan["steps"][key]
        if console is not None:
            console.print(f"{arm.label}: {steps} steps", markup=False, highlight=False, soft_wrap=True)
        train = arm.config.train
        shortened = train.model_copy(update={"steps": steps})
        planned.append(replace(arm, config=arm.config.model_copy(update={"train": shortened})))
    if console is not None:
        console.print(f"budget of each: {amount(budget.amount)} {budget.unit}", markup=False, highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, plan)
    return budget, planned


def _with_shared(word: str, config: Any, first: Arm) -> Any:
    for section in SHARED:
        wanted = vars(first.config).get(section)
        if type(vars(config).get(section)) is not type(wanted):
            raise UserError(
                f"{word} cannot be compared with {first.label} on the same {section}: "
                f"it has {_kind(config, section)}, not {_kind(first.config, section)}"
            )
        if wanted is not None:
            config = config.model_copy(update={section: wanted})
    return config


def _kind(config: Any, section: str) -> str:
    value = vars(config).get(section)
    return f"no section {section}" if value is None else type(value).__name__


def _own_tokens(arm: Arm) -> float:
    return arm.config.train.steps * _experiment_cost(arm).tokens_per_step


def _steps(arm: Arm, budget: Budget, threads: int) -> int:
    if budget.unit == "minutes":
        if trains_on_gpu(arm.config.train):
            raise UserError("--budget minutes=N times steps on the CPU: give flops=N or tokens=N, or accelerator=cpu")
        with built(arm, threads) as experiment:
            each = costs.seconds_per_step(experiment) / 60
    else:
        cost = _experiment_cost(arm)
        each = cost.tokens_per_step * (cost.flops_per_token if budget.unit == "flops" else 1)
    return max(1, round(budget.amount / each))


def _experiment_cost(arm: Arm) -> costs.Cost:
    with built(arm) as experiment:
        return costs.measure(experiment)


def _digest(arm: Arm) -> str:
    settings = arm.config.model_dump(mode="json", exclude_defaults=True)  # a setting added later changes nothing
    content = json.dumps([arm.recipe, settings], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
