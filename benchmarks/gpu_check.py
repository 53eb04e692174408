"""Does everything work on this machine's GPU, and is it the same as on the CPU? Under five minutes, one table.

    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py --device cpu     tries the check itself, where there is no GPU

First all tests marked `gpu`. Then every recipe, tiny and on generated data, is trained for a few steps by the training
loop itself, evaluated, and embeds; the vectors are compared with those of the same weights on the CPU in fp32. Exits
with 1 if a test or a recipe fails or a vector is off, and with 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from openjepa.core.compute import ON_CPU, Compute, compute_for  # noqa: E402
from openjepa.core.errors import UserError  # noqa: E402
from openjepa.core.experiment import Experiment  # noqa: E402
from openjepa.core.memory import peak_memory  # noqa: E402
from openjepa.core.rundir import RunDir  # noqa: E402
from openjepa.core.tables import folding_table  # noqa: E402
from openjepa.core.tasks import Classification, Prediction, Retrieval, Task  # noqa: E402
from openjepa.data.text.inputs import TextInputs  # noqa: E402
from openjepa.evals.features import cosine_rows, embedder_of  # noqa: E402
from openjepa.evals.suite import score_column  # noqa: E402
from openjepa.training.loop import fit, make_fabric  # noqa: E402
from tests.every import EVERY  # noqa: E402

LEAST_COSINE = 0.999
STEPS = 4
PROBED = 60  # inputs of a probe
TEXTS = ["Tom has 3 beads. He finds 2 more beads.", "The wind moved the trees.", "a much longer text " * 4]


@dataclass(frozen=True)
class Row:
    """What one recipe did."""

    recipe: str
    train_step_s: float = float("nan")  # of the last step
    eval_s: float = float("nan")
    cosine: float = float("nan")  # least, between a vector here and on the CPU
    peak_gb: float | None = None
    error: str = ""

    @property
    def passed(self) -> bool:
        return not self.error and self.cosine >= LEAST_COSINE


def checked(recipe: str, build: Callable[[Path], Experiment], compute: Compute, folder: Path) -> Row:
    """Train, evaluate and embed one recipe."""
    with peak_memory() as peak:
        experiment = build(folder / "assets")
        step_s = train_step_s(experiment, compute, folder)
        here = experiment.on(compute)
        began = time.perf_counter()
        tasks = [small(task) for task in here.tasks() if isinstance(task, Classification | Prediction | Retrieval)][:2]
        score_column(tasks, "run", embedder_of(here), here.method, here.compute)
        eval_s = time.perf_counter() - began
        inputs = inputs_of(here)
        vectors = embedder_of(here)(inputs)
    cosine = float(cosine_rows(vectors, embedder_of(here.on(ON_CPU))(inputs)).min())
    return Row(recipe, step_s, eval_s, cosine, peak.gb)


def train_step_s(experiment: Experiment, compute: Compute, folder: Path) -> float:
    """Seconds of the last of STEPS steps of the training loop. Leaves the trained weights in the experiment."""
    settings = {
        "steps": STEPS,
        "warmup_steps": 1,
        "accelerator": compute.device.type,
        "precision": "bf16-mixed" if compute.bf16 else "32-true",
        "log_every": 1,
        "checkpoint_every": 0,
    }
    train = experiment.train.model_copy(update=settings)
    seconds: list[float] = []
    fit(
        make_fabric(train),
        replace(experiment, train=train),
        RunDir(folder),
        [lambda progress, output, stats: seconds.append(stats["batch_s"])],
    )
    return seconds[-1]


def small(task: Task) -> Task:
    """A probe on few inputs; other tasks as they are."""
    if not isinstance(task, Classification):
        return task
    return replace(
        task,
        train=list(task.train[:PROBED]),
        train_labels=list(task.train_labels[:PROBED]),
        test=list(task.test[:PROBED]),
        test_labels=list(task.test_labels[:PROBED]),
    )


def inputs_of(experiment: Experiment) -> list[Any]:
    """A few texts or images that nobody trained on."""
    if isinstance(experiment.embedding.inputs, TextInputs):
        return TEXTS
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(4)]


def table(rows: Sequence[Row]) -> Any:
    """All recipes: seconds, cosine with the CPU, memory."""
    found = folding_table(["recipe", "failed"], ["train step s", "eval s", "embed cosine to CPU", "peak memory GB"])
    for row in rows:
        memory = "" if row.peak_gb is None else f"{row.peak_gb:.2f}"
        reason = row.error or ("" if row.passed else f"cosine below {LEAST_COSINE}")
        found.add_row(row.recipe, reason, f"{row.train_step_s:.3f}", f"{row.eval_s:.2f}", f"{row.cosine:.6f}", memory)
    return found


def gpu_tests() -> bool:
    """Whether all tests marked `gpu` pass; pytest prints what does not."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    from rich.console import Console

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, mps; cpu tries the check itself")
    parser.add_argument("--recipes", nargs="*", choices=[*EVERY], metavar="NAME", help="only these")
    args = parser.parse_args(argv)
    try:
        compute = compute_for(args.device)
    except UserError as error:
        print(f"no GPU was found ({error}); --device cpu tries the check itself", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")  # so few inputs are no fair question to a probe, and it says so
    passed = compute.device.type != "cuda" or gpu_tests()
    rows = []
    for name in args.recipes or EVERY:
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(checked(name, EVERY[name], compute, Path(folder)))
            except Exception as error:  # the other recipes are to be checked all the same
                rows.append(Row(name, error=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))
    console = Console(highlight=False)
    console.width = max(console.width, 120)
    console.print(table(rows))
    passed = passed and all(row.passed for row in rows)
    where = torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else str(compute.device)
    console.print(f"{where}, {'bf16' if compute.bf16 else 'fp32'}: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
