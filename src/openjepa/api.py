"""The Python interface, which the command line also uses: `train`, `load` and what a loaded run can do.

    run = openjepa.train("t_jepa", data="corpus.jsonl", steps=500)
    vectors = run.encode(["A label-free embedding.", "Another one."])  # [2, D]

A run is used from its folder alone: `openjepa.load("runs/...")` gives what `train` gave.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from openjepa.core.configure import configure
from openjepa.core.describe import describe
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.locate import locate_recipe
from openjepa.core.method import Hook
from openjepa.core.rundir import RunDir, read_json, read_jsonl, write_json
from openjepa.core.seeding import seed_global
from openjepa.core.tasks import Task
from openjepa.data.embedding import embed_file
from openjepa.data.examples import semantic_trio
from openjepa.data.given import with_objects, without_objects
from openjepa.data.records import TxtRule
from openjepa.data.sources import DataConfig, held_out_texts
from openjepa.data.vectors import text_rows
from openjepa.evals.audit import Audit, audit, best_vectors
from openjepa.evals.layers import EMBEDDING, Point, vectors_at
from openjepa.evals.ledger import Ledger
from openjepa.evals.similarity import similar
from openjepa.evals.suite import ledger_of, require_texts
from openjepa.evals.suite_file import Suite
from openjepa.health.treatment import treat
from openjepa.train import checkpoint
from openjepa.training_run import train_into

if TYPE_CHECKING:
    from openjepa.readouts import LatentReader

BACKGROUND_TEXTS = 500  # held-out texts whose random pairs tell what a cosine means


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

    def encode(self, inputs: Sequence[Any], batch_size: int = 64, at: Point = EMBEDDING) -> np.ndarray:
        """One vector per input: float32 [N, D], rows in the order given. Inputs are texts for the text recipes.

        `at` other latents than the run's embedding: another encoder, layer or pooling, such as `best_point()`.
        """
        return vectors_at(self.experiment, inputs, at, batch_size)

    def best_point(self) -> Point:
        """Where `audit` found the best vectors, by validation. Raises UserError if there was no audit."""
        file = self.folder.evals / "audit.json"
        if not file.exists():
            raise UserError(f"{self.path} was not audited; openjepa eval {self.path} --sweep finds the best latents")
        return best_vectors(read_json(file))

    def embed_file(
        self,
        source: str | Path,
        out: str | Path,
        column: str = "text",
        batch_size: int = 64,
        on_rows: Callable[[int], None] | None = None,
        at: Point = EMBEDDING,
        txt: TxtRule = "lines",
    ) -> dict[str, Any]:
        """Vectors of the texts in a file, row by row, into `out`; see `encode` and `data.embedding.embed_file`."""

        def encode(texts: Sequence[str]) -> np.ndarray:
            return self.encode(texts, batch_size, at)

        return embed_file(encode, source, out, column, batch_size, on_rows, txt)

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
                f"nothing to evaluate in {self.path}: its data has no labels; set data.label, or give --suite FILE or "
                "--sts FILE"
            )
        return self._keep(ledger_of(asked, self.networks()), name)

    def evaluate_suite(self, suite: Suite | str | Path) -> Ledger:
        """`evaluate` on the tasks of a suite file, with TF-IDF (and BM25) of each task's own words.

        Raises UserError if the suite is not in order, or if the run embeds no texts.
        """
        opened = suite if isinstance(suite, Suite) else Suite.open(suite)
        require_texts(self.experiment, self.recipe)
        groups, networks = opened.groups.values(), self.networks()
        return self._keep(Ledger.joined(ledger_of(tasks, networks) for tasks in groups), opened.name)

    def _keep(self, ledger: Ledger, name: str) -> Ledger:
        write_json(self.folder.evals / f"{name}.json", ledger.to_json())
        return ledger

    def draw(self) -> list[Path]:
        """The recipe's figures of what the run predicts, kept as `evals/<name>.png`.

        Raises UserError if the recipe has none.
        """
        if not self.experiment.figures:
            raise UserError(f"{self.recipe} has no figures of its own")
        drawn = []
        for name, draw in self.experiment.figures.items():
            drawn.append(self.folder.evals / f"{name}.png")
            draw(self.experiment.method, drawn[-1])
        return drawn

    def networks(self) -> dict[str, Experiment]:
        """The run, its initialisation and a random one."""
        return {"run": self.experiment, "init": self.fresh(), "random": self.fresh(random_init=True, seed=-1)}

    def audit(self) -> Audit:
        """Probe every encoder, layer and pooling; the best on validation is tested once. Kept in `evals/audit.json`.

        Raises UserError if the data has no labels, or if the recipe does not say which layers it has.
        """
        found = audit(self.tasks(), self.networks())
        write_json(self.folder.evals / "audit.json", found.to_json())
        return found

    def tasks(self) -> list[Task]:
        """What the recipe asks by default; empty where the data has no labels."""
        return self.experiment.tasks()

    def train_readout(
        self, overrides: Sequence[str] = (), on_step: Callable[[int, float], None] | None = None
    ) -> dict[str, Any]:
        """Train a decoder of this run's frozen latents into text, and keep it and its results in `readout/`.

        `overrides` are "key=value" strings of `train.readout.ReadoutTraining`; `on_step` gets each step and its loss.
        Returns what `readouts.train_and_judge` does. Raises UserError if the recipe has no texts to read back.
        """
        from openjepa import readouts

        config = readouts.ReadoutTraining.load(overrides=overrides)
        newest = checkpoint.newest(self.folder.checkpoints)
        experiment = self.at(newest)  # not the one that is kept: this may move it to another device
        readouts.require_readable(experiment, self.recipe)
        readout, results = readouts.train_and_judge(experiment, config, on_step)
        readouts.save(self.folder.readout, readout, config, results, newest.name)
        return results

    def readout(self) -> LatentReader:
        """What `train_readout` has trained: `run.readout().texts(latents)`. Raises UserError if it has not."""
        from openjepa import readouts

        readable = readouts.require_readable(self.experiment, self.recipe)
        return readouts.load(self.folder.readout, readable, checkpoint.newest(self.folder.checkpoints).name)

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
        """What would treat the newest verdict, as "key=value" of this run's recipe; nothing for a healthy run."""
        records = self.health()
        if not records or records[-1]["status"] == "healthy":
            return []
        settings = {setting.key: setting.value for setting in describe(self.config)}
        return [f"{key}={value}" for key, value in treat(records[-1]["kind"], settings).items()]


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
        **values: settings by keyword: `steps=500`, `data="corpus.jsonl"`. `data` may also be a list of texts or dicts,
            a DataFrame, Series, Dataset or Table, or a function that returns an iterator: see `data.objects`.

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
        values, objects = without_objects(values)
        module, settings = configure(recipe, preset, config, [*overrides, *(f"{k}={v}" for k, v in values.items())])
        settings = with_objects(settings, objects)
        fabric = make_fabric(settings.train)
        fabric.launch()
        path = fabric.broadcast(Path(out) if out else default_folder(recipe))
        if fabric.is_global_zero:
            RunDir.create(path, recipe, settings)
        fabric.barrier()
        run = Run(RunDir.open(path), recipe, settings, module)
    train_into(run.folder, fabric, run.fresh, hooks, resume, progress)
    return load(run.path)


def default_folder(recipe: str) -> Path:
    """Where a run of this recipe goes that is not told where: named by the time."""
    return Path("runs") / f"{Path(recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def read_texts(source: str | Path, column: str = "text", limit: int = BACKGROUND_TEXTS) -> list[str]:
    """The first `limit` texts of a file or folder of texts."""
    return list(islice((row.text for row in text_rows(str(source), column) if row.text is not None), limit))
