"""A run folder opened for use: vectors, evaluations, figures, readouts, and what the run says of itself.

run = openjepa.load("runs/first")
vectors = run.encode(["A label-free embedding.", "Another one."])  # [2, D]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from openjepa.core.atomic import require_writable, writing
from openjepa.core.compute import Compute, compute_for, cpu_multiplies_bf16
from openjepa.core.config import names_files
from openjepa.core.describe import lower_settings, settings_in_use
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.inside import say_outside
from openjepa.core.memory import PeakMemory, peak_memory
from openjepa.core.published import folder_of
from openjepa.core.rundir import PEAK_MEMORY, RunDir, write_json
from openjepa.core.seeding import seed_global
from openjepa.core.tasks import Task
from openjepa.core.trust import trust, trusts_everything
from openjepa.core.values import as_overrides
from openjepa.data.files.records import MAX_LINE_MB, TxtRule
from openjepa.data.text.inputs import LongTexts, ReadingReport, TextInputs
from openjepa.data.text.sources import DataConfig, held_out_texts
from openjepa.data.tokenizers.unknown_tokens import share_of_unknown_words
from openjepa.encoding.compact import Compaction, Quantization
from openjepa.encoding.files import TextFiles, embed_file
from openjepa.encoding.inputs import as_images, as_texts
from openjepa.encoding.workers import Encode, Encoded, Pass, one_process, several_processes
from openjepa.evals.features import cosine_rows, query_vectors, require_finite, with_bf16_weights
from openjepa.evals.input_rows import BATCH_TOKENS
from openjepa.evals.layers import EMBEDDING, Point, vectors_at
from openjepa.evals.networks import Networks
from openjepa.evals.next_sentence import NextSentences, next_sentences
from openjepa.evals.scorecard import Scorecard
from openjepa.evals.similarity import similar
from openjepa.evals.suite import require_texts, scorecard_of
from openjepa.evals.suite_file import Suite
from openjepa.evals.sweep import Sweep, best_vectors, sweep
from openjepa.export.inputs import proof_texts
from openjepa.health.treatment import treat
from openjepa.models.room import built
from openjepa.tasks.examples import GENERAL, semantic_trio
from openjepa.training import checkpoint

if TYPE_CHECKING:
    from openjepa.export.bundle import Exported, Format
    from openjepa.export.publish import Published
    from openjepa.export.source import Source
    from openjepa.readout.store import LatentReader

BF16_COSINE = 0.999  # smallest cosine with fp32 at which vectors may be computed in bf16 without being asked
DEFAULT_PROMPT = ""  # stands for the prompt that a run has by itself
EXAMPLE_TEXT, EXAMPLE_IMAGE = "a text of a few words", np.zeros((64, 64, 3), np.uint8)  # embedded to see how long
BACKGROUND_TEXTS = 500  # held-out texts whose random pairs tell what a cosine means


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder opened for use. Building is lazy: nothing is loaded before the first vector is asked for.

    `device` and `precision` are where its networks run and how precisely; see `load`.
    """

    folder: RunDir
    recipe: str
    config: Any  # the recipe's Config: a BaseConfig with a section `train`
    module: ModuleType
    device: str = "auto"
    precision: str = "auto"
    trust_code: bool = False

    def __repr__(self) -> str:
        """One line of at most 80 characters, such as "Run(t_jepa, step 1000, healthy, runs/first)"."""
        steps = checkpoint.finished(self.folder.checkpoints)
        state = f"step {checkpoint.step_of(steps[-1])}" if steps else "no checkpoint"
        health = self.health()
        parts = [self.recipe, state, *([health[-1]["status"]] if health else [])]
        line = f"Run({', '.join(parts)}, {self.path})"
        return line if len(line) <= 80 else f"{line[:38]}...{line[-39:]}"

    @property
    def path(self) -> Path:
        return self.folder.path

    @cached_property
    def compute(self) -> Compute:
        """The device and precision that the run's networks run on."""
        return compute_for(self.device, self.precision)

    def to(self, device: str | None = None, precision: str | None = None) -> Run:
        """The same run on another device or in another precision; None = as it is. Raises UserError as `load` does."""
        moved = replace(self, device=device or self.device, precision=precision or self.precision)
        compute_for(moved.device, moved.precision)
        return moved

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment with the newest checkpoint's weights, in eval mode."""
        return self.at(checkpoint.newest(self.folder.checkpoints))

    def at(self, weights: Path) -> Experiment:
        """The experiment with the weights of one checkpoint folder."""
        experiment = self.untrained(random_init=True)  # the checkpoint has every weight: no hub, no second copy on disk
        checkpoint.load_weights(weights, experiment.method)
        experiment.method.eval()
        return experiment.on(self.compute)

    def fresh(self, random_init: bool = False, seed: int | None = None) -> Experiment:
        """The experiment as it was before training; with `random_init`, without any pretrained weights."""
        return self.untrained(random_init, seed).on(self.compute)

    def untrained(self, random_init: bool = False, seed: int | None = None) -> Experiment:
        """`fresh`, on the CPU: what training begins with, and moves. Raises UserError if an asset is damaged."""
        _ = self._whole
        finished = bool(checkpoint.finished(self.folder.checkpoints))

        def build() -> Experiment:
            seed_global(self.config.train.seed if seed is None else seed, "init")
            return self.module.build(self.config, BuildContext(self.folder.assets, random_init, finished))

        return built(build, lower_settings(self.config))

    @cached_property
    def _whole(self) -> bool:
        """True, once the assets were read and found to be what was written."""
        self.folder.require_whole()
        return True

    def encode(
        self,
        inputs: Any,
        batch_tokens: int = BATCH_TOKENS,
        at: Point = EMBEDDING,
        long: LongTexts = "windows",
        prompt: str = DEFAULT_PROMPT,
    ) -> np.ndarray:
        """One float32 vector an input: [N, D] in the order given, or [D] for a single text or image.

        Args:
            inputs: texts for the text recipes, images for the others: one, or a list, tuple, array, pandas or polars
                Series, a table of one column, or any iterable. Containers are read by position.
            batch_tokens: tokens embedded at once, with padding.
            at: other latents than the run's embedding (another encoder, layer or pooling), such as `best_point()`.
            long: of texts longer than the encoder reads, "windows" = all of it (the mean of its parts, weighted by
                tokens), "cut" = the first part alone.
            prompt: the name of one of the prompts of the sentence-transformers model that the run started from, such as
                "query"; "" = that model's default.

        Texts that were cut, empty ones (their vector is zero) and words unknown to the tokenizer are counted and said
        by a `ReadingWarning`. Raises UserError naming the position of an item that is no text, or no image.
        """
        items, is_single = self._as_inputs(inputs)
        report = self.reading(long)
        vectors = self._vectors(items, batch_tokens, at, report, prompt)
        if report is not None:
            report.warn()
        return vectors[0] if is_single else vectors

    def encode_quietly(self, texts: Sequence[str], long: LongTexts = "windows") -> np.ndarray:
        """`encode` without a word on what was cut or unknown; the caller says it."""
        return self._vectors(texts, report=self.reading(long))

    def vector_dim(self, at: Point = EMBEDDING) -> int:
        """D, the length of its vectors."""
        example, _ = self._as_inputs(EXAMPLE_IMAGE if self.reading() is None else EXAMPLE_TEXT)
        return self._vectors(example, at=at).shape[1]

    def encode_document(self, texts: Any, **options: Any) -> np.ndarray:
        """`encode` for texts that are searched in, behind the start's prompt "document" if it has one."""
        return self.encode(texts, **self._with_role("document", options))

    def encode_query(self, texts: Any, **options: Any) -> np.ndarray:
        """`encode` for texts that are searched for, behind the start's prompt "query" if it has one.

        A run that `openjepa adapt` made may map queries otherwise than documents; for others there is no difference.
        """
        vectors = self.encode(texts, **self._with_role("query", options))
        return query_vectors(self.experiment.method, np.atleast_2d(vectors)).reshape(vectors.shape)

    def _with_role(self, role: str, options: Mapping[str, Any]) -> dict[str, Any]:
        inputs = self.experiment.embedding.inputs
        has_prompt = isinstance(inputs, TextInputs) and role in inputs.prompts
        return {"prompt": role, **options} if has_prompt else dict(options)

    def reading(self, long: LongTexts = "windows") -> ReadingReport | None:
        """An empty count of what is read of texts; None if the run embeds something else."""
        inputs = self.experiment.embedding.inputs
        return ReadingReport(inputs, long) if isinstance(inputs, TextInputs) else None

    def _as_inputs(self, inputs: Any) -> tuple[list[Any], bool]:
        return as_texts(inputs) if isinstance(self.experiment.embedding.inputs, TextInputs) else as_images(inputs)

    def _vectors(
        self,
        items: Sequence[Any],
        batch_tokens: int = BATCH_TOKENS,
        at: Point = EMBEDDING,
        report: ReadingReport | None = None,
        prompt: str = DEFAULT_PROMPT,
    ) -> np.ndarray:
        experiment = self._bf16_experiment if self._embeds_in_bf16_weights and at == EMBEDDING else self.experiment
        if prompt != DEFAULT_PROMPT:
            read = experiment.embedding.inputs
            if not isinstance(read, TextInputs):
                raise UserError(f"prompt={prompt!r}: {self.recipe} embeds images, before which no prompt stands")
            experiment = replace(experiment, embedding=replace(experiment.embedding, inputs=read.with_prompt(prompt)))
        vectors = vectors_at(experiment, items, at, batch_tokens, report)
        require_finite(vectors, str(self.path))
        return vectors

    def for_bulk(self) -> tuple[Run, float | None]:
        """The run as `embed` uses it if no precision is asked for, and the smallest cosine of its vectors with fp32's.

        In bf16 where this CPU multiplies it fast and the vectors of fixed texts keep a cosine of BF16_COSINE; else the
        run itself and None.
        """
        inputs = self.experiment.embedding.inputs
        is_cpu = self.compute.device.type == "cpu" and not self.compute.bf16
        if self.precision != "auto" or not is_cpu or not isinstance(inputs, TextInputs) or not cpu_multiplies_bf16():
            return self, None
        texts, fast = proof_texts(inputs.max_len), self.to(precision="bf16")
        smallest = float(cosine_rows(fast._vectors(texts), self._vectors(texts)).min())
        return (fast, smallest) if smallest >= BF16_COSINE else (self, None)

    @property
    def _embeds_in_bf16_weights(self) -> bool:
        """On the CPU, casting all weights at every product would cost what bf16 gains."""
        is_cpu = self.compute.bf16 and self.compute.device.type == "cpu"
        return is_cpu and isinstance(self.experiment.embedding.inputs, TextInputs)

    @cached_property
    def _bf16_experiment(self) -> Experiment:
        return with_bf16_weights(self.experiment)

    def best_point(self) -> Point:
        """Where `sweep` found the best vectors, by validation. Raises UserError if there was no sweep."""
        file = self.folder.evals / "sweep.json"
        if not file.exists():
            raise UserError(f"{self.path} has no sweep; openjepa eval {self.path} --sweep finds the best latents")
        return best_vectors(file)

    def embed_file(
        self,
        source: str | Path,
        out: str | Path,
        column: str = "text",
        id_column: str | None = None,
        batch_tokens: int = BATCH_TOKENS,
        on_rows: Callable[[int, bool], None] | None = None,
        at: Point = EMBEDDING,
        long: LongTexts = "windows",
        txt: TxtRule = "lines",
        dims: int | None = None,
        quantization: Quantization = "none",
        processes: int = 1,
        max_line_mb: int | None = None,
    ) -> dict[str, Any]:
        """Vectors of the texts in a file, row by row, into `out`; see `encode` and `encoding.files.embed_file`.

        Args:
            source: a file, folder or pattern as in `data.source`, or "-" for lines of standard input.
            out: a .npy, .parquet or .faiss file.
            column: key or column of the text.
            id_column: key or column that names a row; None = where the row stands ("corpus.jsonl:17").
            on_rows: called with a number of rows that are written, and whether an earlier call wrote them.
            txt: what a text of a .txt file is, as `data.txt`.
            dims: keep the first so many dimensions alone; see `train.matryoshka`.
            quantization: "int8" or "binary" instead of float32; see `encoding.compact.Compaction`.
            processes: how many have a copy of the encoder, each a device or a part of the cores. With more than one,
                a script must guard its main part with `if __name__ == "__main__":`.
            max_line_mb: a line or text of more MiB is a row without a text; None = the run's data.max_line_mb.

        A call that was interrupted is gone on with by the same call. The result also holds `reading`: how many texts
        were long, and which share of tokens was left out or unknown.
        """
        report = self.reading(long)
        if report is None:
            raise UserError(f"embed reads files of texts, and {self.recipe} embeds images; use run.encode(images)")
        inputs = report.inputs
        compaction = Compaction(self.vector_dim(at), dims, quantization, inputs.unit_length and at == EMBEDDING)
        encoding = partial(self.encoding, processes, batch_tokens, at, long)
        data = vars(self.config).get("data")
        longest = data.max_line_mb if isinstance(data, DataConfig) else MAX_LINE_MB
        texts = TextFiles(str(source), column, id_column, txt, max_line_mb or longest)
        result = embed_file(encoding, texts, Path(out), compaction, self._identity(at, long), on_rows)
        report.add_counted(result["reading"])
        report.warn()
        return {**result, "reading": report.to_json()}

    def encoding(
        self,
        processes: int = 1,
        batch_tokens: int = BATCH_TOKENS,
        at: Point = EMBEDDING,
        long: LongTexts = "windows",
    ) -> AbstractContextManager[Pass]:
        """What encodes chunks of texts in their order, here or in several processes; see `encoding.workers`.

        Arguments are those of `embed_file`.
        """
        if processes == 1:
            return one_process(self._counted_encoder(batch_tokens, at, long))
        opened = (self.path, self.compute, self.precision, self.trust_code)
        return several_processes(processes, partial(_encoder_of_process, *opened, batch_tokens, at, long))

    def _counted_encoder(self, batch_tokens: int, at: Point, long: LongTexts) -> Encode:
        """From texts to vectors and what was counted of them."""

        def encode(texts: Sequence[str]) -> Encoded:
            report = self.reading(long)
            assert report is not None
            vectors = self._vectors(texts, batch_tokens, at, report)
            return Encoded(vectors, report.counted)

        return encode

    def _identity(self, at: Point, long: LongTexts) -> dict[str, Any]:
        """What the run's vectors depend on."""
        newest = checkpoint.newest(self.folder.checkpoints)
        return {
            "run": str(self.path.resolve()),
            "checkpoint": newest.name,
            "saved_at": newest.stat().st_mtime,
            "latents": at.name,
            "long": long,
            "bf16": self.compute.bf16,
        }

    def similar(
        self, texts: Sequence[str], background: Sequence[str] | None = None, long: LongTexts = "windows"
    ) -> dict[str, Any]:
        """Cosines of `texts` beside those of random pairs of `background` (default: held-out texts of the run)."""
        report = self.reading(long)
        if report is None:
            raise UserError(f"similar compares texts, and {self.recipe} embeds images; compare run.encode(images)")
        items, _ = as_texts(texts)
        known = self.held_out_texts() if background is None else as_texts(background)[0]
        vectors = self._vectors(items, report=report)
        report.warn()
        return {**similar(items, vectors, self._vectors(known)), "reading": report.to_json()}

    def next_sentences(self, text: str, corpus: Sequence[str] | None = None, top: int = 5) -> NextSentences:
        """The sentences of `corpus` (documents) that are nearest to what the run expects to follow `text`.

        `corpus` defaults to held-out documents of the run's data. Raises UserError if the run predicts no sentences.
        """
        known = self.held_out_texts() if corpus is None else as_texts(corpus)[0]
        return next_sentences(self.experiment, self.recipe, text, known, top)

    def general_check(self) -> dict[str, Any]:
        """`similar` for three sentences of everyday English, with `labels`.

        Raises UserError for a run that knows only a synthetic world: cosines of words it has never seen mean nothing.
        """
        inputs = self.experiment.embedding.inputs
        if isinstance(inputs, TextInputs) and inputs.synthetic_world:
            share = share_of_unknown_words(inputs.tokenizer, GENERAL.texts)
            raise UserError(
                f"this run knows only the words of its synthetic world: {100 * share:.0f} % of those of an everyday "
                f"sentence are unknown to it; give texts of that world: openjepa similar {self.path} TEXT TEXT"
            )
        return {"labels": list(GENERAL.labels), **self.similar(GENERAL.texts)}

    def semantic_check(self) -> dict[str, Any]:
        """`similar` for an original, a variation and an unrelated text, with `labels` that say which is which."""
        trio = semantic_trio(self._text_data)
        return {"labels": list(trio.labels), **self.similar(trio.texts)}

    def held_out_texts(self, limit: int = BACKGROUND_TEXTS) -> list[str]:
        """Texts of the run's data that it was not trained on."""
        return [document.text for document in held_out_texts(self._text_data, limit)]

    @property
    def compares_texts(self) -> bool:
        """Whether the run's data are texts, so that `semantic_check` has something to compare."""
        return isinstance(vars(self.config).get("data"), DataConfig)

    @property
    def _text_data(self) -> DataConfig:
        if not self.compares_texts:
            raise UserError(f"{self.recipe} keeps no held-out texts of its own; give some as background")
        self.require_data()
        return self.config.data

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
        """The scorecard of all tasks of these groups, which is kept; says what a user has to know of what was read."""
        require_writable(self.folder.evals)
        networks, report = self.networks(), self.reading(long)
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

    def networks(self) -> Networks:
        """The run, its initialisation and a random one; of the latter two, one at a time is in memory."""
        others = {"init": self.fresh, "random": partial(self.fresh, random_init=True, seed=-1)}
        return Networks(lambda: self.experiment, others)

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

    def tasks(self) -> list[Task]:
        """What the recipe asks by default; empty where the data has no labels. Raises UserError if the data is gone."""
        self.require_data()
        return self.experiment.tasks()

    def require_data(self) -> None:
        """Raises UserError if files that the run was trained on are not where they were; else says what is read."""
        for key, value in self.config.locations().items():
            if key.startswith("data."):
                require_there(self.config, key, f"if it has moved: openjepa config move {self.path} {key}=NEW")
                say_outside(self.path, key, value)

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

    def _query_vectors(self, inputs: list[Any], prompted: bool) -> np.ndarray:
        """Vectors of queries, cut, behind the start's prompt for them or not."""
        options = self._with_role("query", {}) if prompted else {}
        return query_vectors(self.experiment.method, self._vectors(inputs, report=self.reading("cut"), **options))

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

    def summary(self) -> dict[str, Any]:
        """The run's summary.json. Raises UserError if training did not end yet."""
        summary = self.folder.read_summary()
        if not summary:
            raise UserError(f"{self.path} has no summary: its training did not end; go on with --resume {self.path}")
        return summary

    def add_to_summary(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Add results that came after training to summary.json, and return it."""
        summary = {**self.summary(), **parts}
        write_json(self.folder.summary, summary)
        return summary

    def adaptation(self) -> dict[str, Any]:
        """What `openjepa adapt` measured and decided when it made this run. Raises UserError for another run."""
        found = self.folder.read_adaptation()
        if not found:
            raise UserError(f"{self.path} was not made by openjepa adapt")
        return found

    def health(self) -> list[dict[str, Any]]:
        """All records of the health monitor, oldest first."""
        return list(self.folder.health_records())

    def suggested_overrides(self) -> list[str]:
        """What would treat the newest verdict, as "key=value" of this run's recipe; nothing for a healthy run."""
        records = self.health()
        if not records or records[-1]["status"] in ("healthy", "not judged"):
            return []
        latest = records[-1]
        patch = treat(latest["kind"], settings_in_use(self.config), latest, latest["also"])
        return as_overrides(patch)


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
    compute_for(device, precision)
    folder = RunDir.open(folder_of(path))
    recipe, values = folder.recipe_and_values()
    if trust_code:
        trust(folder.code_names(recipe, values))
    module = folder.recipe_module(recipe)
    return Run(folder, recipe, module.Config.load(values), module, device, precision, trust_code or trusts_everything())


def _encoder_of_process(
    path: Path,
    compute: Compute,
    precision: str,
    trust_code: bool,
    batch_tokens: int,
    at: Point,
    long: LongTexts,
    number: int,
) -> Encode:
    """The encoder of worker process `number`, on a device of its own where there are several."""
    device = f"cuda:{number % torch.cuda.device_count()}" if compute.device.type == "cuda" else str(compute.device)
    return load(path, device, precision, trust_code)._counted_encoder(batch_tokens, at, long)


def require_there(config: Any, key: str, advice: str) -> None:
    """Raises UserError if this setting is an absolute path of nothing."""
    value = config.setting(key)
    if isinstance(value, str) and Path(value).is_absolute() and not names_files(value):
        raise UserError(f"{key}={value}: there is nothing of that name; {advice}")
