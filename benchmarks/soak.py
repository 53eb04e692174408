"""One training through many faults: kill -9, SIGTERM, a damaged newest checkpoint, a full disk, at random moments.

    python benchmarks/soak.py --events 50

In the end the weights must equal those of an undisturbed run bit for bit, each step must have read the same samples
however often it was repeated, and within an epoch no sample may be missing or twice. Exits with 1 if any of it fails.
Processes are forked from one that has imported the package, so an event costs a training's own start alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).with_name("soak_recipe.py")
SETTINGS = (
    "data.documents=150",
    "tokenizer.vocab_size=300",
    "encoder.dim=16",
    "encoder.max_len=32",
    "encoder.depth=1",
    "encoder.heads=2",
    "predictor.width=8",
    "predictor.depth=1",
    "predictor.heads=2",
    "train.batch_tokens=0",
    "train.batch_size=8",
    "train.accelerator=cpu",
    "train.threads=1",
    "train.checkpoint_every=3",
    "train.checkpoint_seconds=0.5",
    "train.health_every=10000",
    "train.health_samples=1",
    "train.log_every=3",
    "train.keep_checkpoints=3",
)
PRELOADED = [  # what a training imports, so that it takes a second to start
    "openjepa.cli.train",
    "openjepa.cli.printing",
    "openjepa.training.loop",
    "openjepa.recipes.t_jepa",
    "openjepa.data.worlds.stories",
    "torch._dynamo",
    "pandas",
    "pyarrow",
]
FAULTS = ("kill -9", "SIGTERM", "cut checkpoint", "flipped bit", "full disk")
TOO_SMALL = 20_000  # bytes of a file on the "full disk": less than a checkpoint has
PATIENCE_S = 300.0
ENDS = {"SIGTERM": "143", "full disk": "2", "the last start": "0"}  # exit codes; a killed process has none


def train(words: Sequence[str], keys: str, log: str, exit_code: Path, largest_file: int | None = None) -> None:
    """The command line in this process; its exit code goes to a file, what it prints to `log`."""
    os.environ["SOAK_KEYS"] = keys
    with open(log, "a", encoding="utf-8") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    from openjepa.cli import main

    exit_code.write_text(str(main(["train", *words, "--no-eval"])))


class Soak:
    """A disturbed training in `folder`, beside the undisturbed one that it is compared with."""

    def __init__(self, folder: Path, steps: int, events: int, seed: int) -> None:
        self.folder, self.steps, self.random = folder, steps, random.Random(seed)
        self.exit_code = folder / "exit-code"  # a fork server tells it, too, but not always
        self.pace = max(1, steps // events - 4)  # most batches between two events: they all happen before the end
        self.run, self.straight = folder / "disturbed", folder / "straight"
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(PRELOADED)

    def start(self, run: Path, largest_file: int | None = None) -> Any:
        """A process that begins the training in `run`, or goes on with it."""
        if (run / "config.yaml").exists():
            words = ["--resume", str(run), "--trust-code"]
        else:
            words = [str(RECIPE), *SETTINGS, f"train.steps={self.steps}", "--out", str(run)]
        name = run.name
        if largest_file is not None:  # of the log and the keys, too: they begin anew
            name += "-full"
            for suffix in (".keys.jsonl", ".log"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)
        keys, log = (str(self.folder / f"{name}{suffix}") for suffix in (".keys.jsonl", ".log"))
        self.exit_code.unlink(missing_ok=True)
        arguments = (words, keys, log, self.exit_code, largest_file)
        process = self.processes.Process(target=train, args=arguments)
        process.start()
        return process

    def disturb(self, fault: str) -> str:
        """Let the training run for a moment and disturb it; what came of it."""
        if fault == "full disk":
            process = self.start(self.run, TOO_SMALL)
            return self._ended(fault, process)
        process = self.start(self.run)
        self._wait_for_batches(process, self.random.randint(1, self.pace))
        os.kill(process.pid, signal.SIGTERM if fault == "SIGTERM" else signal.SIGKILL)
        return self._ended(fault, process) + self._damage(fault)

    def _ended(self, fault: str, process: Any) -> str:
        """Wait for the process, which must end as the fault ends it."""
        process.join(PATIENCE_S)
        code = self.exit_code.read_text() if self.exit_code.exists() else "none"
        if process.is_alive() or code != ENDS.get(fault, "none"):
            last = self.run.with_suffix(".log").read_text(encoding="utf-8").splitlines()[-12:]
            raise SystemExit(f"after {fault}: exit code {code}\n" + "\n".join(last))
        return f"exit code {code}"

    def _wait_for_batches(self, process: Any, count: int) -> None:
        """Until it has read so many since it began: every process gets on, and none comes to the end."""
        file = self.run.with_suffix(".keys.jsonl")
        before, end = lines_of(file), time.monotonic() + PATIENCE_S
        while lines_of(file) < before + count and process.is_alive() and time.monotonic() < end:
            time.sleep(0.005)

    def _damage(self, fault: str) -> str:
        """Damage a file of the newest checkpoint, if there is another one to fall back to."""
        from openjepa.training import checkpoint

        found = checkpoint.finished(self.run / "checkpoints")
        if fault not in ("cut checkpoint", "flipped bit") or len(found) < 2:
            return ""
        file = self.random.choice([path for path in found[-1].iterdir() if path.stat().st_size])
        data = bytearray(file.read_bytes())
        if fault == "cut checkpoint":
            data = data[: self.random.randrange(len(data))]
        else:
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        file.write_bytes(data)
        return f", damaged {found[-1].name}/{file.name}"

    def finish(self, run: Path) -> None:
        """Train `run` to its end, undisturbed."""
        self._ended("the last start", self.start(run))

    def differences(self) -> list[str]:
        """What the disturbed run has otherwise than the undisturbed one; empty if all is well."""
        weights, others = (weights_of(run) for run in (self.run, self.straight))
        unlike = [name for name in others if weights.get(name) != others[name]]
        found = [f"{len(unlike)} of {len(others)} weights differ, the first is {unlike[0]}"] if unlike else []
        batches, expected = (batches_of(run.with_suffix(".keys.jsonl")) for run in (self.run, self.straight))
        found += [
            f"step {step} read other samples when it was repeated" for step, seen in batches.items() if len(seen) > 1
        ]
        if {step: min(seen) for step, seen in batches.items()} != {step: min(seen) for step, seen in expected.items()}:
            found.append("the samples of some steps are not those of the undisturbed run")
        return found + lost_or_twice([list(min(batches[step])) for step in sorted(batches)])


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def weights_of(run: Path) -> dict[str, bytes]:
    """The last weights, as bytes, by name."""
    from safetensors.torch import load_file

    from openjepa.training import checkpoint

    tensors = load_file(checkpoint.newest(run / "checkpoints") / checkpoint.WEIGHTS)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def batches_of(file: Path) -> dict[int, set[tuple[int, ...]]]:
    """By step, the different lists of samples that were read for it."""
    found: dict[int, set[tuple[int, ...]]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # killed in the middle of it
            continue
        found.setdefault(row["step"], set()).add(tuple(row["keys"]))
    return found


def lost_or_twice(batches: Sequence[Sequence[int]]) -> list[str]:
    """Whether all batches, in their order, are whole epochs and a rest, each sample once in each."""
    every = {key for batch in batches for key in batch}
    counts = Counter(key for batch in batches for key in batch)
    if max(counts.values()) - min(counts.values()) > 1:
        return ["some samples were read more often than others by two or more"]
    seen: set[int] = set()
    for number, batch in enumerate(batches):
        if seen & set(batch):
            return [f"step {number} reads samples a second time in its epoch"]
        seen |= set(batch)
        if seen == every:
            seen = set()
    return []


def soak(folder: Path, events: int, steps: int, seed: int = 0, faults: Sequence[str] = FAULTS) -> dict[str, Any]:
    """Run it all; {"events": [...], "differences": [...], "seconds": ...}."""
    began = time.monotonic()
    one = Soak(folder, steps, events, seed)
    one.finish(one.straight)
    happened = []
    for number in range(events):
        fault = one.random.choice(faults) if number >= len(faults) else faults[number]
        happened.append(f"{fault}: {one.disturb(fault)}")
        print(f"{number + 1}/{events} {happened[-1]}", file=sys.stderr, flush=True)
    one.finish(one.run)
    seconds = round(time.monotonic() - began, 1)
    return {"events": happened, "differences": one.differences(), "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = soak(folder, given.events, given.steps, given.seed)
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    return 1 if result["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
