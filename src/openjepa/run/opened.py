"""A run folder opened for use: vectors, evaluations, figures, readouts, exports.

run = openjepa.load("runs/first")
vectors = run.encode(["A label-free embedding.", "Another one."])  # [2, D]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openjepa.core.atomic import require_writable, writing
from openjepa.core.compute import Compute, compute_for
from openjepa.core.errors import UserError
from openjepa.core.memory import PeakMemory, peak_memory
from openjepa.core.rundir import PEAK_MEMORY, write_json
from openjepa.core.tasks import Task
from openjepa.data.text.inputs import LongTexts
from openjepa.evals.scorecard import Scorecard
from openjepa.evals.suite import require_texts, scorecard_of
from openjepa.evals.suite_file import Suite
from openjepa.evals.sweep import Sweep, sweep
from openjepa.run.vectors import RunVectors
from openjepa.run.weights import opened_as
from openjepa.training import checkpoint

if TYPE_CHECKING:
    from openjepa.export.bundle import Exported, Format
    from openjepa.export.publish import Published
    from openjepa.export.source import Source
    from openjepa.readout.store import LatentReader


@dataclass(frozen=True, repr=False)
class Run(RunVectors):
    """A run folder opened for use. Building is lazy: nothing is loaded before the first vector is asked for.

    `device` and `precision` are where its networks run and how precisely; see `load`.
    """

    def evaluate(
        self, tasks: Sequence[Task] | None = None, name: str = "default", long: LongTexts = "windows"
    ) -> Scorecard:
        """Score the run beside its initialisation, a random one and TF-IDF; kept in `evals/<name>.json`.

        `tasks` defaults to the recipe's own; `long` as for `encode`. Raises UserError if there are none.
        """
        chosen = self.tasks() if tasks is None else list(tasks)
        if not chosen:
            raise UserError(
                f"nothing to evaluate in {self.path}: its data has no labels; set data.label, or give --suite FILE or "
                "--sts FILE"
            )
        return self._scored(lambda: [chosen], name, long)

    def evaluate_suite(self, suite: Suite | str | Path, long: LongTexts = "windows") -> Scorecard:
        """`evaluate` on the tasks of a suite file, with TF-IDF (and BM25) of each task's own words.

        Raises UserError if the suite is not in order, or if the run embeds no texts.
        """
        opened = suite if isinstance(suite, Suite) else Suite.open(suite)
        require_texts(self.experiment, self.recipe)
        return self._scored(opened.groups.values, opened.name, long)

    def _scored(self, groups: Callable[[], Iterable[Sequence[Task]]], name: str, long: LongTexts) -> Scorecard:
        """Score all tasks of these groups, save the scorecard, and warn of texts that were cut or unknown."""
        require_writable(self.folder.evals)
        networks = self.networks()
        report = self.reading(long)
        with peak_memory() as peak:
            scorecard = Scorecard.joined(scorecard_of(tasks, networks, report) for tasks in groups())
        write_json(self.folder.evals / f"{name}.json", scorecard.to_json())
        self._keep_peak(peak)
        if report is not None:
            report.warn()
        return scorecard

    def _keep_peak(self, peak: PeakMemory) -> None:
        if peak.gb is not None and self.folder.summary.exists():
            self.add_to_summary({PEAK_MEMORY: {**self.peak_memory(), "evaluation": round(peak.gb, 3)}})

    def peak_memory(self) -> dict[str, float]:
        """Largest memory in use, in GB: of "training" and of the newest "evaluation", as far as they are over."""
        return dict(self.folder.read_summary().get(PEAK_MEMORY, {}))

    def draw(self) -> list[Path]:
        """The recipe's figures of what the run predicts, kept as `evals/<name>.png`.

        Raises UserError if the recipe has none.
        """
        if not self.experiment.figures:
            raise UserError(f"{self.recipe} has no figures of its own")
        drawn = []
        for name, draw in self.experiment.figures.items():
            drawn.append(self.folder.evals / f"{name}.png")
            with writing(drawn[-1]), self.compute.autocast():
                draw(self.experiment.method, drawn[-1])
        return drawn

    def sweep(self, on_probe: Callable[[int, int, str], None] | None = None) -> Sweep:
        """Probe every encoder, layer and pooling; the best on validation is tested once. Kept in `evals/sweep.json`.

        `on_probe` is called before each probe with (probes done, probes in all, what is probed).
        Raises UserError if the data has no labels, or if the recipe does not say which encoders it has.
        """
        require_writable(self.folder.evals)
        with peak_memory() as peak:
            found = sweep(self.tasks(), self.networks(), on_probe=on_probe)
        self._keep_peak(peak)
        write_json(self.folder.evals / "sweep.json", found.to_json())
        return found

    def train_readout(
        self, overrides: Sequence[str] = (), on_step: Callable[[int, float], None] | None = None
    ) -> dict[str, Any]:
        """Train a decoder of this run's frozen latents into text, and keep it and its results in `readout/`.

        `overrides` are "key=value" strings of `ReadoutTraining`; `on_step` gets each step and its loss.
        Returns what `store.train_and_judge` does. Raises UserError if the recipe has no texts to read back.
        """
        from openjepa.readout import store

        config = store.ReadoutTraining.load(overrides=overrides)
        newest = checkpoint.newest(self.folder.checkpoints)
        experiment = self.at(newest).on(self._training_compute())  # not the one that is kept: this may move it
        store.require_readable(experiment, self.recipe)
        readout, results = store.train_and_judge(experiment, config, on_step)
        store.save(self.folder.readout, readout, config, results, newest.name)
        return results

    def export(
        self, to: Format, out: str | Path, int8: bool = False, licence: str = "unknown", with_code: bool = False
    ) -> Exported:
        """Write the run's encoder to the folder `out` for another library, if its vectors there are the run's own.

        Args:
            to: sentence-transformers, transformers, onnx or model2vec.
            out: a folder that does not exist yet, or an earlier export, which is replaced.
            int8: for onnx, also a model with 8-bit weights.
            licence: of the weights, for the model card: an identifier of the Hugging Face hub's list.
            with_code: for sentence-transformers, allow a file of code where a plain tokenizer cannot do what the run
                does (LANG-JEPA marks sentences); it is loaded only with trust_remote_code=True.

        The export is opened again in a fresh process and compared on fixed inputs; the result says how far the vectors
        are apart. Raises UserError where the format cannot express the run; nothing is left behind then.
        """
        from openjepa.export.bundle import export

        return export(self.export_source(licence), to, Path(out), int8, with_code)

    def push(self, name: str, to: Format | None = None, licence: str = "unknown", private: bool = True) -> Published:
        """Publish the run as the model `name` ("owner/name") of the Hugging Face hub.

        Args:
            name: of the repository; made if it does not exist.
            to: the other library that finds its model at the top of the repository; None = sentence-transformers for
                texts, transformers for images.
            licence: of the weights, for the model card.
            private: whether a new repository is private; an existing one stays as it is.

        `openjepa.load(name)` opens the run from there. Raises UserError if the format cannot express the run, or the
        hub refuses.
        """
        from openjepa.export.publish import publish

        return publish(self.folder, self.export_source(licence), to or self.usual_format, name, private)

    @property
    def usual_format(self) -> Format:
        """The library that most users of such a run have."""
        return "transformers" if self.reading() is None else "sentence-transformers"

    def export_source(self, licence: str = "unknown") -> Source:
        """What an export is made of, on the CPU in fp32. Raises UserError if the predictor makes the run's vectors."""
        from openjepa.export.card import model_card
        from openjepa.export.source import Source

        exact = self.to("cpu", "32")
        objective = (self.module.__doc__ or "").strip().partition("\n")[0]
        embedding = exact.experiment.embedding
        return Source(
            name=str(self.path),
            embedding=embedding,
            encoder=exact.experiment.method.encoders()[embedding.encoder],
            vectors=lambda inputs: exact._vectors(list(inputs), report=exact.reading("cut")),
            query_vectors=lambda inputs, prompted: exact._query_vectors(list(inputs), prompted),
            held_out=lambda: self.held_out_texts() if self.compares_texts else [],
            card=lambda to, texts: model_card(self.folder, self.recipe, objective, self.config, to, texts, licence),
        )

    def _training_compute(self) -> Compute:
        """Where a readout is trained: as the run was, unless a device or a precision is asked for."""
        train = self.config.train
        trained_in = {"32-true": "32", "bf16-mixed": "bf16"}[train.precision]
        device = train.accelerator if self.device == "auto" else self.device
        return compute_for(device, trained_in if self.precision == "auto" else self.precision)

    def readout(self) -> LatentReader:
        """What `train_readout` has trained: `run.readout().texts(latents)`. Raises UserError if it has not."""
        from openjepa.readout import store

        readable = store.require_readable(self.experiment, self.recipe)
        newest = checkpoint.newest(self.folder.checkpoints).name
        return store.load(self.folder.readout, readable, newest, self.compute.device)


def load(path: str | Path, device: str = "auto", precision: str = "auto", trust_code: bool = False) -> Run:
    """Open a run folder, or a run of the Hugging Face hub.

    Args:
        path: the folder; or "owner/name" of a model that `openjepa push` made, where there is no such folder.
        device: where its networks run: auto (a GPU if there is one, else the CPU), cpu, cuda, cuda:1 or mps.
        precision: of matrix products: 32, bf16 (autocast), or auto = bf16 on CUDA and 32 elsewhere.
        trust_code: let the run import code outside the package that it names: a recipe file or module, or a function in
            its settings. Read that code first.

    Raises UserError if there is no run in the folder, a file of it is damaged, there is no such device on this machine,
    or its code is not trusted.
    """
    return opened_as(Run, path, device, precision, trust_code)
