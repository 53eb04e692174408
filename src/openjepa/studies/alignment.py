"""Alignment of questions with their answers by the latent prediction: two runs that differ only in lambda, one figure.

Every health check of a recipe that watches a retrieval measures, on held-out questions, the cosine of the prediction
with its answer, with the other answers and with random directions, and the rank of its answer. The study reads these
curves from the runs' health logs, so it costs no more than the training, and finished runs can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from openjepa import api
from openjepa.core.configure import configure
from openjepa.core.errors import UserError
from openjepa.core.rundir import default_folder, write_json

FIGURE = "latent_alignment.png"
TABLE = "latent_alignment.json"
WEIGHT = "weight"  # the key of a recipe's Config that is lambda
COSINES = {"own_cosine": "own answer", "shuffled_cosine": "shuffled answers", "random_cosine": "random directions"}
COLOURS = {"own_cosine": "#0b6e4f", "shuffled_cosine": "#d1495b", "random_cosine": "#8d99ae"}


@dataclass(frozen=True)
class Curves:
    """Alignment measures of one run's health checks on held-out questions; all lists are as long as `steps`."""

    run: str
    label: str
    steps: list[int]
    own_cosine: list[float]
    shuffled_cosine: list[float]
    random_cosine: list[float]
    mrr: list[float]
    top1: list[float]
    mrr_chance: float
    top1_chance: float


def study(
    recipe: str,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """Train `recipe` with lambda = 0 and as configured, into `out`/lambda-0 and `out`/lambda-X, and compare the two.

    Returns what `compare` does. Raises UserError if the recipe has no `weight` above 0, or if `out` holds these runs.
    """
    _, settings = configure(recipe, preset, config, overrides)
    weight = vars(settings).get(WEIGHT)
    if not weight:
        raise UserError(
            f"{recipe} has {WEIGHT}={weight}; the study needs a recipe with a {WEIGHT} above 0 to compare with"
        )
    folder = Path(out) if out else default_folder(f"align-{Path(recipe).stem}")
    weights = (0.0, float(weight))
    runs = []
    for number, value in enumerate(weights, start=1):
        if progress:
            which = "with" if value else "without"
            line = (
                f"training {number} of {len(weights)}: {which} the latent prediction ({WEIGHT}={value:g}), "
                f"seed {settings.train.seed}"
            )
            Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
        runs.append(
            api.train(
                recipe,
                preset=preset,
                config=config,
                out=folder / f"lambda-{value:g}",
                overrides=[*overrides, f"{WEIGHT}={value}"],
                progress=progress,
            )
        )
    return compare(runs, folder)


def compare(runs: Sequence[api.Run], out: str | Path) -> dict[str, Any]:
    """Write the figure and the curves of finished runs into the folder `out`.

    Returns {"figure", "table", "runs": one `Curves` each as a dict}. Raises UserError if a run measured no alignment.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    all_curves = [curves(run) for run in runs]
    draw(all_curves, folder / FIGURE)
    result = {"figure": str(folder / FIGURE), "table": str(folder / TABLE), "runs": [asdict(one) for one in all_curves]}
    write_json(folder / TABLE, result)
    return result


def curves(run: api.Run) -> Curves:
    """The alignment of one run over its training. Raises UserError if its health log holds none."""
    records = [record for record in run.health() if "own_cosine" in record]
    if not records:
        raise UserError(f"{run.path} measured no alignment: {run.recipe} watches no retrieval, or it did not train")
    weight = vars(run.config).get(WEIGHT)
    columns: Mapping[str, Any] = {name: [record[name] for record in records] for name in (*COSINES, "mrr", "top1")}
    return Curves(
        run=str(run.path),
        label=run.path.name if weight is None else f"lambda = {weight:g}",
        steps=[record["step"] for record in records],
        mrr_chance=records[-1]["mrr_chance"],
        top1_chance=records[-1]["top1_chance"],
        **columns,
    )


def draw(runs: Sequence[Curves], path: Path) -> None:
    """One panel of cosines for each run, on one scale, and one of ranks for all of them."""
    from matplotlib.figure import Figure  # 0.5 s, and no window system is needed

    figure = Figure(figsize=(4.2 * (len(runs) + 1), 3.8), layout="constrained")
    panels = figure.subplots(1, len(runs) + 1)
    lowest = min(0.0, *(min(getattr(one, name)) for one in runs for name in COSINES))
    for axes, one in zip(panels, runs, strict=False):
        for name, label in COSINES.items():
            axes.plot(one.steps, getattr(one, name), label=label, color=COLOURS[name], linewidth=1.8)
        gap = one.own_cosine[-1] - one.shuffled_cosine[-1]
        axes.set(title=f"{one.label}: own - shuffled = {gap:.2f}", xlabel="step", ylim=(lowest - 0.05, 1.05))
        axes.legend(loc="best", frameon=False)
    panels[0].set_ylabel("cosine of the prediction with ...")
    for one in runs:
        panels[-1].plot(one.steps, one.mrr, label=f"{one.label}: {one.mrr[-1]:.2f}", linewidth=1.8)
    panels[-1].axhline(runs[0].mrr_chance, color="grey", linestyle=":", label=f"chance: {runs[0].mrr_chance:.2f}")
    panels[-1].set(title="mean reciprocal rank of the own answer", xlabel="step", ylim=(0, 1.05))
    panels[-1].legend(loc="best", frameon=False)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle("Latent alignment on held-out questions")
    figure.savefig(path, dpi=130)
