"""How much memory does training VL-JEPA take? The peak of a fresh process, as the operating system counted it.

    python benchmarks/bench_memory.py
    python benchmarks/bench_memory.py train_vision=true

ViT-B/16 and BERT-base, their weights random from their configs, images of 224 pixels, batch 1 with gradient
accumulation: the setting of the original, which wanted to fit into 4 GB. The peak is that of the whole training process
(libraries, data, caches, health checks, checkpoints), not of its tensors alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepping import machine
from vl_parts import make_encoders

RESULTS = Path(__file__).parent / "results"
BUDGET_GB = 4.0
BASE = {"layers": 12, "dim": 768, "heads": 12, "vocab": 30_522, "pixels": 224}
TOY = {"layers": 1, "dim": 32, "heads": 2, "vocab": 1000, "pixels": 48}


def settings(steps: int, images: int) -> list[str]:
    """Of a short run with everything that a long one does."""
    return [
        *(f"data.images={images}", "data.eval_fraction=0.3", "predictor.width=384", "predictor.depth=4"),
        *("predictor.heads=6", "train.batch_size=1", "train.accumulate=2", f"train.steps={steps}"),
        *(f"train.health_every={steps}", "train.health_samples=2", "train.accelerator=cpu"),
    ]


def measure(argv: Sequence[str]) -> float:
    """Peak resident memory in GB of `openjepa` with these arguments. Raises RuntimeError if it fails."""
    done = subprocess.run([sys.executable, "-m", "openjepa", *argv], capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the recipe")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--toy", action="store_true", help="tiny encoders, to try the benchmark itself")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    args = parser.parse_intermixed_args(argv)
    size = TOY if args.toy else BASE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["OPENJEPA_CACHE"] = str(folder / "cache")
        asked = [*make_encoders(folder, **size), *settings(args.steps, args.images), *args.overrides]
        peak_gb = measure(["train", "vl_jepa", *asked, "--no-eval", "--out", str(folder / "run")])
    kind = "memory_vl_jepa_toy" if args.toy else "memory_vl_jepa"
    result: dict[str, Any] = {"name": kind, "size": size, "overrides": args.overrides, **machine()}
    result |= {"peak_gb": round(peak_gb, 2), "budget_gb": BUDGET_GB}
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / f"{kind}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"peak resident memory {peak_gb:.2f} GB (aim: at most {BUDGET_GB:.0f} GB)")


if __name__ == "__main__":
    main()
