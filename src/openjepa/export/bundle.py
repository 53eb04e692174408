"""From a run to a folder in another library's format: written aside, opened elsewhere, compared, and only then kept."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from openjepa.core.atomic import replaced_folder
from openjepa.core.errors import UserError
from openjepa.core.rundir import write_json
from openjepa.export import onnx, static, writers
from openjepa.export.code_file import add_sentence_marks, require_rules
from openjepa.export.inputs import as_squares, proof_images, proof_texts
from openjepa.export.proof import TOLERANCE, Approximation, Opened, Proof, prove
from openjepa.export.source import Source
from openjepa.export.usage import notes_on, usage_of
from openjepa.models.pretrained_vision import OUR_MEAN, OUR_STD

Format = Literal["sentence-transformers", "transformers", "onnx", "model2vec"]
Proofs = tuple[Proof | Approximation, ...]
FORMATS: tuple[Format, ...] = get_args(Format)
NEEDS = {"sentence-transformers": "sentence_transformers", "onnx": "onnxruntime", "model2vec": "model2vec"}
DESCRIPTION = "export.json"  # what the vectors are, and the proof
WRITERS = {
    "sentence-transformers": writers.write_sentence_transformers,
    "transformers": writers.write_transformers,
    "onnx": writers.write_onnx,
    "model2vec": static.write_static,
}


@dataclass(frozen=True)
class Exported:
    """An export that was kept."""

    folder: Path
    proofs: Proofs

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "proofs": [proof.to_json() for proof in self.proofs]}


def export(
    source: Source,
    to: Format,
    out: Path,
    int8: bool = False,
    with_code: bool = False,
    opened: Opened | None = None,
) -> Exported:
    """Write `source` to the folder `out` in the format `to`, if its vectors there are the run's own.

    Args:
        source: the run as exports see it.
        to: the format.
        out: a folder that does not exist yet, or an earlier export, which is replaced.
        int8: for onnx, also a model with 8-bit weights, whose vectors differ by what its own proof says.
        with_code: allow a file of code where a plain tokenizer cannot do what the run does (sentence-transformers).
        opened: how the export is opened for the proof; None = in a fresh process.

    Raises UserError where the format cannot express the run, a library is missing, the folder holds other files, or the
    vectors differ by more than the tolerance; nothing is left behind then.
    """
    require_library(to)
    _require_free(out)
    _require_expressible(source, to, with_code)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced_folder(out) as folder:
        WRITERS[to](source, folder)
        if needs_code(source, to):
            add_sentence_marks(source, folder)
        if to == "onnx" and int8:
            onnx.write_int8(folder / onnx.MODEL, folder / onnx.MODEL_INT8)
        description = describe(source, to)
        write_json(folder / DESCRIPTION, description)
        proofs = _proofs(source, to, folder, int8, opened)
        write_json(folder / DESCRIPTION, {**description, "proof": [proof.to_json() for proof in proofs]})
        (folder / "README.md").write_text(card_of(source, to, proofs), encoding="utf-8")
    return Exported(out, proofs)


def require_library(to: Format) -> None:
    """Raises UserError if the library of a format is not installed."""
    if to in NEEDS and importlib.util.find_spec(NEEDS[to]) is None:
        raise UserError(f"--to {to} needs the package {NEEDS[to]}: pip install 'openjepa[export]'")


def describe(source: Source, to: Format) -> dict[str, Any]:
    """What a reader of the folder needs to know of the vectors, beside what the format itself says."""
    embedding = source.embedding
    found: dict[str, Any] = {
        "format": to,
        "reads": "texts" if source.reads_texts else "images",
        "pooling": embedding.pooling,
        "normalization": embedding.normalization,
        "skipped_positions": int(source.skips_cls),
        "needs_code": needs_code(source, to),
        "maps_queries": source.maps_queries,
    }
    if source.reads_texts:
        tokenizer = source.tokenizer
        name = tokenizer.backend.id_to_token(tokenizer.pad_id)
        row = {"max_length": source.max_row, "pad_id": tokenizer.pad_id, "pad_token": name}
        return {**found, **row, "prompt": source.prompt}
    mean, std = writers.statistics(source) if to == "transformers" else ([*OUR_MEAN], [*OUR_STD])
    return {**found, "pixels": source.images.pixels, "image_mean": mean, "image_std": std}


def needs_code(source: Source, to: Format) -> bool:
    """Whether the export holds a file of code: sentences are marked, and the format can load code for it."""
    return to == "sentence-transformers" and source.reads_texts and source.texts.sentences is not None


def _require_free(out: Path) -> None:
    is_empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not is_empty and not (out / DESCRIPTION).exists():
        raise UserError(f"{out} exists and is no earlier export; give --out a folder that does not exist")


def _require_expressible(source: Source, to: Format, with_code: bool) -> None:
    """Raises UserError, before anything is written, where a format cannot give the run's vectors."""
    if not source.reads_texts:
        if to == "model2vec":
            raise UserError("--to model2vec is a table of tokens; this run reads images: --to transformers or onnx")
        if to == "sentence-transformers" and source.skips_cls:
            raise UserError(
                "--to sentence-transformers would pool [CLS] too, which this run does not; --to transformers or onnx"
            )
        return
    if to == "model2vec":
        return
    if to == "transformers" and source.embedding.maps is not None:
        raise UserError(
            f"{source.name} has linear maps behind its pooling, for which transformers has no place; --to "
            "sentence-transformers or onnx"
        )
    if source.texts.sentences is not None:
        require_rules(source)
        if not (with_code and needs_code(source, to)):
            raise UserError(
                f"{source.name} marks the end of each sentence before it reads a text, which a plain tokenizer cannot; "
                "--to sentence-transformers --with-code exports a small file of code with it, which "
                "trust_remote_code=True loads"
            )
        return
    unlike = source.unlike_a_plain_tokenizer(proof_texts(source.max_row))
    if unlike:
        raise UserError(
            f"{source.name} cannot be exported: a plain tokenizer reads {len(unlike)} of the fixed texts differently, "
            f"the first is {unlike[0][:40]!r}; openjepa embed writes the vectors to a file"
        )


def _proofs(source: Source, to: Format, folder: Path, int8: bool, opened: Opened | None) -> Proofs:
    """Compare the export with the run. Raises UserError if it gives other vectors."""
    if to == "model2vec":
        return (_static_proof(source, folder),)
    if source.reads_texts:
        inputs: Sequence[Any] = proof_texts(source.max_row)
        given = inputs
    else:
        inputs = proof_images(source.images.pixels)
        given = as_squares(inputs, source.images.pixels)
    expected = source.vectors(inputs)
    if source.maps_queries:
        expected = np.concatenate([expected, source.query_vectors(inputs, to != "onnx")], axis=1)
    file = onnx.MODEL if to == "onnx" else None
    proofs: list[Proof | Approximation] = [prove(to, folder, given, expected, file, TOLERANCE[to], opened)]
    if not proofs[0].holds:
        raise UserError(
            f"the export gives other vectors than the run and was not kept ({proofs[0].sentence()}); please report it"
        )
    if to == "onnx" and int8:
        proofs.append(prove(to, folder, given, expected, onnx.MODEL_INT8, opened=opened))
    return tuple(proofs)


def _static_proof(source: Source, folder: Path) -> Approximation:
    """How much of the order of similarities is left, on held-out texts of the run where it has some."""
    from model2vec import StaticModel

    texts = source.held_out() or proof_texts(source.max_row)
    vectors = np.asarray(StaticModel.from_pretrained(folder).encode(texts))
    return Approximation("model2vec", len(texts), static.kept_order(source.vectors(texts), vectors))


def card_of(source: Source, to: Format, proofs: Proofs) -> str:
    """The model card with how to use this format, and its proof."""
    usage = usage_of(to, source.reads_texts, needs_code(source, to))
    lines = "\n".join(f"- {proof.sentence()}" for proof in proofs)
    card = source.card(to, source.reads_texts)
    return f"{card}\n## Use\n\n```python\n{usage}```\n\n{notes_on(source)}\n## Proof\n\n{lines}\n"
