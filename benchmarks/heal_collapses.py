"""Does the advice heal? Each forced collapse is trained, diagnosed, and trained again with what `diagnose` suggests.

    python benchmarks/heal_collapses.py
    python benchmarks/heal_collapses.py complete scale

The collapses are the files of `tests/collapses`, named after the kind they force. A twin differs in the
suggested settings alone; while it is still not well, its own advice is followed too, `--rounds` times at most. Healed
means: the verdict is healthy, skill is above the limit under which nothing counts as learned, and rank is at least half
of what the encoder started with. Seconds are of the whole twin, data and health checks included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import openjepa
from openjepa.api import Run
from openjepa.core.configure import recipe_of
from openjepa.health.signs import FALLEN, SKILL_FLOOR

GALLERY = Path(__file__).parents[1] / "tests" / "collapses"
RESULTS = Path(__file__).parent / "results" / "heal_collapses.json"


@dataclass(frozen=True)
class State:
    """The last health check of a run."""

    status: str
    kind: str | None
    skill: float
    rank: float
    rank_at_start: float
    seconds: float

    @property
    def healed(self) -> bool:
        return self.status == "healthy" and self.skill > SKILL_FLOOR and self.rank >= FALLEN * self.rank_at_start


def train(config: Path, overrides: Sequence[str], out: Path) -> tuple[Run, State]:
    """Train one file of the gallery."""
    began = time.perf_counter()
    run = openjepa.train(recipe_of(config), config=config, out=out, overrides=overrides, progress=False)
    first, *_, last = run.health()
    found = (last["status"], last["kind"], last["skill"], last["rank"], first["rank"])
    return run, State(*found, round(time.perf_counter() - began, 1))


def heal(config: Path, folder: Path, rounds: int) -> list[dict]:
    """The collapse, then every twin: what was changed against the file, and the state it ended in."""
    run, state = train(config, [], folder / "0")
    rows = [{"overrides": [], "healed": False, **asdict(state)}]
    overrides: list[str] = []
    for number in range(1, rounds + 1):
        overrides = [*overrides, *run.suggested_overrides()]
        run, state = train(config, overrides, folder / str(number))
        rows.append({"overrides": overrides, "healed": state.healed, **asdict(state)})
        if state.healed:
            break
    return rows


def line(forced: str, number: int, row: dict) -> str:
    """One row of the table."""
    name = forced if number == 0 else f"  twin {number}"
    verdict = row["status"] + (f" ({row['kind']})" if row["kind"] else "")
    rank = f"{row['rank']:.1f} / {row['rank_at_start']:.1f}"
    figures = f"{name:18} {verdict:32} {row['skill']:6.2f} {rank:>12} {row['seconds']:7.1f}"
    return " ".join([figures, "healed " if row["healed"] else " " * 7, *row["overrides"]])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(file.stem for file in GALLERY.glob("*.yaml"))
    parser.add_argument("kinds", nargs="*", default=known, help=f"default: all ({', '.join(known)})")
    parser.add_argument("--rounds", type=int, default=2, help="how often advice is followed, at most (default 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON file")
    args = parser.parse_args(argv)
    if unknown := set(args.kinds) - set(known):
        parser.error(f"no collapse called {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    print(f"{'forced / twin':18} {'verdict':32} {'skill':>6} {'rank / start':>12} {'seconds':>7}")
    found: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.kinds:
            found[kind] = heal(GALLERY / f"{kind}.yaml", Path(folder) / kind, args.rounds)
            for number, row in enumerate(found[kind]):
                print(line(kind, number, row), flush=True)
    named = sum(rows[0]["kind"] == kind for kind, rows in found.items())
    print(f"{named} of {len(found)} kinds named, {sum(rows[-1]['healed'] for rows in found.values())} healed")
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
