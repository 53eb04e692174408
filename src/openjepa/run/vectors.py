"""The vectors of a run: of objects in memory and of files, on one device or in several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from openjepa.core.compute import Compute, cpu_multiplies_bf16
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.data.files.records import MAX_LINE_MB, TxtRule
from openjepa.data.text.inputs import LongTexts, ReadingReport, TextInputs
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.unknown_tokens import share_of_unknown_words
from openjepa.encoding.compact import Compaction, Quantization
from openjepa.encoding.files import TextFiles, embed_file
from openjepa.encoding.inputs import as_images, as_texts
from openjepa.encoding.workers import Encode, Encoded, Pass, one_process, several_processes
from openjepa.evals.features import cosine_rows, query_vectors, require_finite, with_bf16_weights
from openjepa.evals.input_rows import BATCH_TOKENS
from openjepa.evals.layers import EMBEDDING, Point, vectors_at
from openjepa.evals.next_sentence import NextSentences, next_sentences
from openjepa.evals.similarity import similar
from openjepa.evals.sweep import best_vectors
from openjepa.export.inputs import proof_texts
from openjepa.run.weights import RunWeights, opened_as
from openjepa.tasks.examples import GENERAL, semantic_trio

BF16_COSINE = 0.999  # smallest cosine with fp32 at which vectors may be computed in bf16 without being asked
DEFAULT_PROMPT = ""  # stands for the prompt that a run has by itself
# embedded to see how long
EXAMPLE_TEXT = "a text of a few words"
EXAMPLE_IMAGE = np.zeros((64, 64, 3), np.uint8)


@dataclass(frozen=True, repr=False)
class RunVectors(RunWeights):
    """What turns texts or images into vectors with the newest checkpoint's weights."""

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
        if options.get("at", EMBEDDING) != EMBEDDING:  # the map of queries belongs to the embedding
            return vectors
        return query_vectors(self.experiment.method, np.atleast_2d(vectors)).reshape(vectors.shape)

    def _with_role(self, role: str, options: Mapping[str, Any]) -> dict[str, Any]:
        inputs = self.experiment.embedding.inputs
        has_prompt = isinstance(inputs, TextInputs) and role in inputs.prompts
        return {"prompt": role, **options} if has_prompt else dict(options)

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

    def _query_vectors(self, inputs: list[Any], prompted: bool) -> np.ndarray:
        """Vectors of queries, cut, behind the start's prompt for them or not."""
        options = self._with_role("query", {}) if prompted else {}
        return query_vectors(self.experiment.method, self._vectors(inputs, report=self.reading("cut"), **options))

    def for_bulk(self) -> tuple[Self, float | None]:
        """The run as `embed` uses it if no precision is asked for, and the smallest cosine of its vectors with fp32's.

        In bf16 where this CPU multiplies it fast and the vectors of fixed texts keep a cosine of BF16_COSINE; else the
        run itself and None.
        """
        inputs = self.experiment.embedding.inputs
        is_cpu = self.compute.device.type == "cpu" and not self.compute.bf16
        if self.precision != "auto" or not is_cpu or not isinstance(inputs, TextInputs) or not cpu_multiplies_bf16():
            return self, None
        texts = proof_texts(inputs.max_len)
        fast = self.to(precision="bf16")
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
        *,
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
            txt: what a text of a .txt file is, one of the rules of `data.txt`.
            dims: keep the first so many dimensions alone; see `train.matryoshka`.
            quantization: "int8" or "binary" instead of float32; see `encoding.compact.Compaction`.
            processes: how many have a copy of the encoder, each a device or a part of the cores. With more than one,
                a script must guard its main part with `if __name__ == "__main__":`.
            max_line_mb: a line or text of more MiB is a row without a text; None = the run's data.max_line_mb.

        Repeat an interrupted call to resume it. The result also holds `reading`: how many texts
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
        return {**self.identity, "latents": at.name, "long": long, "bf16": self.compute.bf16}

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
    return opened_as(RunVectors, path, device, precision, trust_code)._counted_encoder(batch_tokens, at, long)
