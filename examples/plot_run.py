"""Draw one run: skill and rank over training, and what the evaluation found beside its baselines.

python examples/plot_run.py runs/first picture.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from openjepa.core.json_files import read_json, read_jsonl
from openjepa.core.rundir import RunDir

COLUMNS = {"run": "#1f4e9c", "init": "#9aa5b1", "random": "#cfd6de", "tfidf": "#d98b2b"}


def draw(run: RunDir, out: Path) -> None:
    """Three panels: held-out skill, effective rank, and every measure of the run's summary."""
    health = list(read_jsonl(run.health))
    steps = [row["step"] for row in health]
    figure, (skill, rank, scorecard) = plt.subplots(1, 3, figsize=(13, 4.2), width_ratios=[1, 1, 2.4])
    skill.plot(steps, [row["skill"] for row in health], color=COLUMNS["run"], marker="o", ms=3)
    skill.axhline(0, color="#888", lw=0.8)
    skill.set(title="Skill on held-out text", xlabel="step", ylim=(-0.25, 1))
    rank.plot(steps, [row["rank"] for row in health], color=COLUMNS["run"], marker="o", ms=3)
    rank.set(title=f"Effective rank (cap {int(health[-1]['rank_cap'])})", xlabel="step", ylim=(0, None))

    measures = read_json(run.summary)["eval"]
    width = 0.8 / len(COLUMNS)
    for shift, (column, color) in enumerate(COLUMNS.items()):
        positions = [i + (shift - 1.5) * width for i in range(len(measures))]
        scorecard.bar(positions, [m.get(column, 0.0) for m in measures.values()], width, color=color, label=column)
    chances = [m["chance"] for m in measures.values()]
    scorecard.scatter(range(len(measures)), chances, marker="_", color="black", s=90, label="chance", zorder=3)
    scorecard.set_xticks(range(len(measures)), list(measures), rotation=60, ha="right", fontsize=8)
    scorecard.set(title="Evaluation beside its baselines (synthetic stories)", ylim=(0, 1.05))
    for axis in (skill, rank, scorecard):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.legend(fontsize=9, ncols=5, loc="lower left", bbox_to_anchor=(0.03, 0.05), frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/plot_run.py RUN picture.png")
    draw(RunDir.open(Path(sys.argv[1])), Path(sys.argv[2]))
