"""The Python interface, which the command line also uses: `train`, `load` and what a loaded run can do.

    run = openjepa.train("t_jepa", data="corpus.jsonl", steps=500)
    vectors = run.encode(["A label-free embedding.", "Another one."])  # [2, D]

A run is used from its folder alone: `openjepa.load("runs/...")` gives what `train` gave.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console

from openjepa.core.configure import configure
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.locate import locate_recipe
from openjepa.core.method import Hook
from openjepa.core.rundir import RunDir, read_json, read_jsonl, write_json
from openjepa.core.seeding import seed_global
from openjepa.core.tasks import Prediction, Task
from openjepa.data.examples import semantic_trio
from openjepa.data.sources import DataConfig, held_out_texts
from openjepa.data.vectors import text_rows, vector_writer
from openjepa.evals.baselines import tfidf_for
from openjepa.evals.features import Embedder, embed_all
from openjepa.evals.ledger import Ledger
from openjepa.evals.similarity import similar
from openjepa.evals.suite import run_suite
from openjepa.health.monitor import HealthMonitor
from openjepa.train import checkpoint
from openjepa.train.hooks import HealthObserver, Hooks, default_hooks

BACKGROUND_TEXTS = 500  # held-out texts whose random pairs tell what a cosine means
CHUNK_BATCHES = 32  # batches of a file that are sorted by length and embedded together


@dataclass(frozen=True)
class Run:
    """A run folder opened for use. Building is lazy: nothing is loaded before the first vector is asked for."""

    folder: RunDir
    recipe: str
    config: Any  # the recipe's Config: a BaseConfig with a section `train`
    module: ModuleType

    @property
    def path(self) -> Path:
        return self.folder.path

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment with the newest checkpoint's weights, in eval mode."""
        return self.at(checkpoint.newest(self.folder.checkpoints))

    def at(self, weights: Path) -> Experiment:
        """The experiment with the weights of one checkpoint folder."""
        experiment = self.fresh(random_init=True)  # the checkpoint has every weight: no hub, no second copy on disk
        checkpoint.load_weights(weights, experiment.method)
        experiment.method.eval()
        return experiment

    def fresh(self, random_init: bool = False, seed: int | None = None) -> Experiment:
        """The experiment as it was before training; with `random_init`, without any pretrained weights."""
        seed_global(self.config.train.seed if seed is None else seed, "init")
        return self.module.build(self.config, BuildContext(self.folder.assets, random_init))

    def encode(self, inputs: Sequence[Any], batch_size: int = 64) -> np.ndarray:
        """One vector per input: float32 [N, D], rows in the order given. Inputs are texts for the text recipes."""
        return embed_all(self.experiment.method, self.experiment.prepare, inputs, batch_size)

    def embed_file(
        self,
        source: str | Path,
        out: str | Path,
        column: str = "text",
        batch_size: int = 64,
        on_rows: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Vectors of the texts in a file, row by row, into `out`; memory does not grow with the file.

        Args:
            source: .txt (a text a line), .jsonl or .parquet, the first two also as .gz; "-" = lines of standard input.
            out: .npy (float32 [N, D]) or .parquet (columns id, vector). It appears when it is complete.
            column: key or column of the text.
            batch_size: texts embedded at once.
            on_rows: called with the number of rows just written.

        Returns {"rows", "dim", "without_text", "first_without_text", "out"}. A row without text has a zero vector.
        Raises UserError if a file cannot be read or written, or no row holds a text.
        """
        dim = self.encode(["a text"]).shape[1]
        incoming = text_rows(str(source), column)
        rows, empty = 0, []
        with vector_writer(Path(out)) as writer:
            while chunk := list(islice(incoming, CHUNK_BATCHES * batch_size)):
                has_text = np.array([row.text is not None for row in chunk])
                vectors = np.zeros((len(chunk), dim), dtype=np.float32)  # [N, D]
                if has_text.any():
                    vectors[has_text] = self.encode([row.text for row in chunk if row.text is not None], batch_size)
                writer.add([row.id for row in chunk], vectors)
                rows += len(chunk)
                empty += [row.id for row in chunk if row.text is None]
                if on_rows is not None:
                    on_rows(len(chunk))
            if len(empty) == rows:
                raise UserError(f"{source} holds no text: {f'{rows} rows, all without one' if rows else 'it is empty'}")
        first = empty[0] if empty else None
        return {"rows": rows, "dim": dim, "without_text": len(empty), "first_without_text": first, "out": str(out)}

    def similar(self, texts: Sequence[str], background: Sequence[str] | None = None) -> dict[str, Any]:
        """Cosines of `texts` beside those of random pairs of `background` (default: held-out texts of the run)."""
        return similar(self.encode, texts, self.held_out_texts() if background is None else background)

    def semantic_check(self) -> dict[str, Any]:
        """`similar` for an original, a variation and an unrelated text, with `labels` that say which is which."""
        trio = semantic_trio(self._text_data)
        return {"labels": list(trio.labels), **self.similar(trio.texts)}

    def held_out_texts(self, limit: int = BACKGROUND_TEXTS) -> list[str]:
        """Texts of the run's data that it was not trained on."""
        return [document.text for document in held_out_texts(self._text_data, limit)]

    @property
    def _text_data(self) -> DataConfig:
        data = vars(self.config).get("data")
        if not isinstance(data, DataConfig):
            raise UserError(f"{self.recipe} keeps no held-out texts of its own; give some as background")
        return data

    def evaluate(self, tasks: Sequence[Task] | None = None, name: str = "default") -> Ledger:
        """Score the run beside its initialisation, a random one and TF-IDF; kept in `evals/<name>.json`.

        `tasks` defaults to the recipe's own. Raises UserError if there are none.
        """
        asked = self.tasks() if tasks is None else list(tasks)
        if not asked:
            raise UserError(
                f"nothing to evaluate in {self.path}: its data has no labels; set data.label or give --sts FILE"
            )
        networks = {"run": self.experiment, "init": self.fresh(), "random": self.fresh(random_init=True, seed=-1)}
        columns = {name: _embedder(network) for name, network in networks.items()}
        if not all(isinstance(task, Prediction) for task in asked):
            columns["tfidf"] = tfidf_for(asked)
        ledger = run_suite(asked, columns, {name: network.method for name, network in networks.items()})
        write_json(self.folder.evals / f"{name}.json", ledger.to_json())
        return ledger

    def tasks(self) -> list[Task]:
        """What the recipe asks by default; empty where the data has no labels."""
        return self.experiment.tasks()

    def summary(self) -> dict[str, Any]:
        """The run's summary.json. Raises UserError if training did not end yet."""
        if not self.folder.summary.exists():
            raise UserError(f"{self.path} has no summary: its training did not end; go on with --resume {self.path}")
        return read_json(self.folder.summary)

    def add_to_summary(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Add results that came after training to summary.json, and return it."""
        summary = {**self.summary(), **parts}
        write_json(self.folder.summary, summary)
        return summary

    def health(self) -> list[dict[str, Any]]:
        """All records of the health monitor, oldest first."""
        return list(read_jsonl(self.folder.health))

    def suggested_overrides(self) -> list[str]:
        """What the newest verdict would change, as "key=value", where this recipe has such a key."""
        records, known = self.health(), set(self.config.keys())
        override = records[-1].get("override") or {} if records else {}
        return [f"{key}={value}" for key, value in override.items() if key in known]


def _embedder(experiment: Experiment) -> Embedder:
    return lambda inputs: embed_all(experiment.method, experiment.prepare, inputs)


def load(path: str | Path) -> Run:
    """Open a run folder. Raises UserError if it is none."""
    folder = RunDir.open(Path(path))
    recipe, values = folder.recipe_and_values()
    module = locate_recipe(recipe)
    return Run(folder, recipe, module.Config.load(values), module)


def train(
    recipe: str,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
    overrides: Sequence[str] = (),
    progress: bool = True,
    **values: Any,
) -> Run:
    """Train a recipe and return its run.

    Args:
        recipe: a built-in name ("t_jepa"), a dotted module path, or a recipe file ("./my_method.py").
        preset: a shipped size ("tiny", "small", ...); "tiny" if nothing is given.
        config: a YAML file, used instead of a preset.
        out: the run folder; default `runs/<recipe>-<time>`.
        resume: continue the run in `out` from its newest checkpoint. Its own config is used.
        hooks: called at every log step with (progress, output, stats), besides those that write the run's logs.
        overrides: "key=value" strings, as on the command line.
        progress: show a progress line on stderr.
        **values: settings by keyword: `steps=500`, `data="corpus.jsonl"`.

    Raises:
        UserError: bad configuration, unreadable data, a folder that already holds a run, or training that had to stop.
    """
    from openjepa.train.loop import make_fabric

    if resume:
        if out is None:
            raise UserError("resume needs the run folder: out=RUN")
        run = load(out)
        fabric = make_fabric(run.config.train)
        fabric.launch()
    else:
        module, settings = configure(recipe, preset, config, [*overrides, *(f"{k}={v}" for k, v in values.items())])
        fabric = make_fabric(settings.train)
        fabric.launch()
        path = Path(out) if out else Path("runs") / f"{Path(recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        path = fabric.broadcast(path)
        if fabric.is_global_zero:
            RunDir.create(path, recipe, settings)
        fabric.barrier()
        run = Run(RunDir.open(path), recipe, settings, module)
    return _train_into(fabric, run, hooks, resume, progress)


def _train_into(fabric: Any, run: Run, hooks: Sequence[Hook], resume: bool, progress: bool) -> Run:
    from openjepa.train.loop import fit

    with fabric.rank_zero_first():  # the first build writes the assets, the other ranks read them
        experiment = run.fresh()
        for rows in (experiment.train_data, experiment.eval_data):
            len(rows)  # ty: ignore[invalid-argument-type]  - tokenises once
    folder = run.folder
    resume = resume and bool(checkpoint.finished(folder.checkpoints))  # stopped before the first one: start over
    if fabric.is_global_zero:
        folder.forget_after(checkpoint.newest_step(folder.checkpoints) if resume else -1)
    fabric.barrier()
    with _observers(run, hooks, progress and fabric.is_global_zero, fabric.is_global_zero) as observers:
        monitor = _health_monitor(experiment, folder, observers.on_health)
        try:
            fit(fabric, experiment, folder, observers.on_step, monitor, resume)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; go on with: openjepa train --resume {folder.path}") from None
    if fabric.is_global_zero:
        write_json(folder.summary, {**_summary(run), "notes": experiment.notes()})
    return load(folder.path)


def _summary(run: Run) -> dict[str, Any]:
    """The whole run in one object, from its logs: a resumed run's is that of an uninterrupted one."""
    rows, health = list(read_jsonl(run.folder.metrics)), run.health()[-1]
    tokens = sum(row["tokens"] for row in rows)
    train_s = sum(row["tokens"] / row["tokens_per_s"] for row in rows)  # without health checks and checkpoints
    return {
        "recipe": run.recipe,
        "steps": rows[-1]["step"],
        "train_s": round(train_s, 2),
        "tokens_per_s": round(tokens / train_s, 1),
        "loss": rows[-1]["loss"],
        "skill": health.get("skill"),
        "verdict": health["status"],
        "health": health,
    }


@contextlib.contextmanager
def _observers(run: Run, hooks: Sequence[Hook], progress: bool, main: bool) -> Generator[Hooks]:
    """The hooks of the main process: log files, progress, trackers and the caller's own. Other ranks have none."""
    if not main:
        yield Hooks([], [])
        return
    console = Console(stderr=True) if progress else None
    with default_hooks(run.folder, console, run.config.train.track) as usual:
        yield Hooks([*usual.on_step, *hooks], usual.on_health)


def _health_monitor(experiment: Experiment, folder: RunDir, on_health: Sequence[HealthObserver]) -> HealthMonitor:
    from openjepa.data.loader import eval_batches

    def write(record: Mapping[str, Any]) -> None:
        for observer in on_health:
            observer(record)

    monitor = HealthMonitor(list(eval_batches(experiment, experiment.train.health_batches)), write=write)
    monitor.restore(read_jsonl(folder.health))
    return monitor


def read_texts(source: str | Path, column: str = "text", limit: int = BACKGROUND_TEXTS) -> list[str]:
    """The first `limit` texts of a .txt, .jsonl or .parquet file."""
    return list(islice((row.text for row in text_rows(str(source), column) if row.text is not None), limit))
