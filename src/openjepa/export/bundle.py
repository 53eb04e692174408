"""From a run to a folder in another library's format: written aside, opened elsewhere, compared, and only then kept."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from openjepa.core.atomic import replaced_folder
from openjepa.core.errors import UserError
from openjepa.export import onnx, static
from openjepa.export.code_file import add_sentence_marks, require_rules
from openjepa.export.inputs import as_squares, proof_images, proof_texts
from openjepa.export.proof import TOLERANCE, Approximation, Opened, Proof, prove
from openjepa.export.source import Source
from openjepa.export.tokenizer import fast_tokenizer
from openjepa.export.twins import stock_model
from openjepa.models.pretrained import quiet_transformers
from openjepa.models.pretrained_vision import PretrainedViT

Format = Literal["sentence-transformers", "transformers", "onnx", "model2vec"]
Proofs = tuple[Proof | Approximation, ...]
FORMATS: tuple[Format, ...] = get_args(Format)
NEEDS = {"sentence-transformers": "sentence_transformers", "onnx": "onnxruntime", "model2vec": "model2vec"}
DESCRIPTION = "export.json"  # what the vectors are, and the proof
POOLING_NAMES = {"mean": "mean", "last": "lasttoken", "cls": "cls", "max": "max"}  # as sentence-transformers calls them


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
        _write_json(folder / DESCRIPTION, describe(source, to))
        proofs = _proofs(source, to, folder, int8, opened)
        _write_json(folder / DESCRIPTION, {**describe(source, to), "proof": [proof.to_json() for proof in proofs]})
        (folder / "README.md").write_text(card_of(source, to, proofs), encoding="utf-8")
    return Exported(out, proofs)


def require_library(to: Format) -> None:
    """Raises UserError if the library of a format is not installed."""
    if to in NEEDS and importlib.util.find_spec(NEEDS[to]) is None:
        raise UserError(f"--to {to} needs the package {NEEDS[to]}: pip install 'openjepa[export]'")


def describe(source: Source, to: Format) -> dict[str, Any]:
    """What a reader of the folder needs to know of the vectors, beside what the format itself says."""
    embedding = source.embedding
    pretrained_vision = isinstance(getattr(source.encoder, "module", source.encoder), PretrainedViT)
    found: dict[str, Any] = {
        "format": to,
        "reads": "texts" if source.reads_texts else "images",
        "pooling": embedding.pooling,
        "normalization": embedding.normalization,
        "skipped_positions": 1 if pretrained_vision else 0,  # [CLS] is not pooled
        "needs_code": needs_code(source, to),
    }
    if source.reads_texts:
        tokenizer = source.tokenizer
        name = tokenizer.backend.id_to_token(tokenizer.pad_id)
        row = {"max_length": source.max_row, "pad_id": tokenizer.pad_id, "pad_token": name}
        return {**found, **row, "prompt": source.prompt}
    mean, std = _statistics(source) if to == "transformers" else ([0.5] * 3, [0.5] * 3)
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
        if to == "sentence-transformers" and describe(source, to)["skipped_positions"]:
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
    usage = USAGE[to, source.reads_texts]
    if needs_code(source, to):
        usage = usage.replace(f'"{FOLDER}")', f'"{FOLDER}", trust_remote_code=True)')
    lines = "\n".join(f"- {proof.sentence()}" for proof in proofs)
    card = source.card(to, source.reads_texts)
    return f"{card}\n## Use\n\n```python\n{usage}```\n\n{_notes(source)}\n## Proof\n\n{lines}\n"


def _notes(source: Source) -> str:
    if source.reads_texts:
        said = (
            f" Put {source.prompt!r} before every text (sentence-transformers does it by itself)."
            if source.prompt
            else ""
        )
        return (
            f"Texts longer than {source.max_row} tokens are cut; `openjepa` itself reads them whole, as the mean of "
            f"their parts.{said} An empty text gives the vector of its special tokens here, and zeros in `openjepa`.\n"
        )
    side = source.images.pixels
    return (
        f"Cut pictures that are not square first: `PIL.ImageOps.fit(image, ({side}, {side}), "
        "PIL.Image.Resampling.BICUBIC)`.\n"
    )


# ---- one writer a format ----


def _write_transformers(source: Source, folder: Path) -> None:
    with quiet_transformers():
        if source.reads_texts:
            pad_id = source.tokenizer.pad_id
            stock_model(source.encoder, pad_id, source.embedding.causal).save_pretrained(folder)
            fast_tokenizer(source).save_pretrained(folder)
        else:
            stock_model(source.encoder).save_pretrained(folder)
            _image_processor(source).save_pretrained(folder)


def _write_sentence_transformers(source: Source, folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    plain = folder / "plain"
    plain.mkdir()
    _write_transformers(source, plain)
    limit = {"max_seq_length": source.max_row} if source.reads_texts else {}
    with quiet_transformers(), onnx.quiet_export():
        transformer = Transformer(str(plain), **limit)
        pooling: Any = POOLING_NAMES[source.embedding.pooling]
        modules: list[Any] = [transformer, Pooling(source.encoder.dim, pooling), *_dense_modules(source)]
        if source.embedding.normalization == "unit":
            modules.append(Normalize())
        head = source.head
        prompts: Any = {} if head is None else {"prompts": head.prompts, "default_prompt_name": head.default_prompt}
        model = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="cosine", **prompts)
        model.save_pretrained(str(folder), create_model_card=False)
    for file in plain.iterdir():
        file.unlink()
    plain.rmdir()


def _dense_modules(source: Source) -> list[Any]:
    """The linear maps behind the pooling, as that library's modules."""
    from sentence_transformers.sentence_transformer.modules import Dense

    maps: list[Any] = [] if source.head is None else list(source.head.maps)
    return [
        Dense(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            activation,
            init_weight=linear.weight.detach(),
            init_bias=None if linear.bias is None else linear.bias.detach(),
        )
        for linear, activation in zip(maps[::2], maps[1::2], strict=True)
    ]


def _write_onnx(source: Source, folder: Path) -> None:
    onnx.write_onnx(source, folder / onnx.MODEL)
    if source.reads_texts:
        with quiet_transformers():
            fast_tokenizer(source).save_pretrained(folder)


def _image_processor(source: Source) -> Any:
    """Square images to pixels as the run reads them, by Pillow."""
    from transformers import SiglipImageProcessor, ViTImageProcessor

    side = source.images.pixels
    mean, std = _statistics(source)
    is_pretrained = isinstance(getattr(source.encoder, "module", source.encoder), PretrainedViT)
    made = ViTImageProcessor if is_pretrained else SiglipImageProcessor
    return made(size={"height": side, "width": side}, resample=3, image_mean=mean, image_std=std)


def _statistics(source: Source) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, of values in [0, 1], that the encoder's images are normed by."""
    inner = getattr(source.encoder, "module", source.encoder)
    if isinstance(inner, PretrainedViT):
        return inner.mean.flatten().tolist(), inner.std.flatten().tolist()
    return [0.5] * 3, [0.5] * 3


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


WRITERS = {
    "sentence-transformers": _write_sentence_transformers,
    "transformers": _write_transformers,
    "onnx": _write_onnx,
    "model2vec": static.write_static,
}
FOLDER = "path/to/this/folder"
USAGE = {
    ("sentence-transformers", True): f"""from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{FOLDER}")
documents = model.encode_document(["The ferry left at nine.", "Boxes were counted in spring."])
print(model.similarity(model.encode_query("When did the boat go?"), documents))
""",
    ("sentence-transformers", False): f"""from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{FOLDER}")
vectors = model.encode([Image.open("picture.png")])
""",
    ("transformers", True): f"""from transformers import AutoModel, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("{FOLDER}"), AutoModel.from_pretrained("{FOLDER}")
batch = tokenizer(["The ferry left at nine."], padding=True, truncation=True, return_tensors="pt")
states = model(**batch).last_hidden_state  # pooled as export.json says
""",
    ("transformers", False): f"""from PIL import Image
from transformers import AutoImageProcessor, AutoModel

processor, model = AutoImageProcessor.from_pretrained("{FOLDER}"), AutoModel.from_pretrained("{FOLDER}")
pixels = processor([Image.open("picture.png")], return_tensors="pt")
states = model(**pixels).last_hidden_state  # pooled as export.json says
""",
    ("onnx", True): f"""import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

session = onnxruntime.InferenceSession("{FOLDER}/{onnx.MODEL}")
tokenizer = Tokenizer.from_file("{FOLDER}/tokenizer.json")
tokenizer.enable_truncation(json.load(open("{FOLDER}/{DESCRIPTION}"))["max_length"])  # the network reads no more
tokenizer.encode_special_tokens = True  # "[MASK]" written in a text is text
row = tokenizer.encode("The ferry left at nine.")
fed = {{"input_ids": np.array([row.ids]), "attention_mask": np.array([row.attention_mask])}}
vectors = session.run(["{onnx.OUTPUT}"], fed)[0]
""",
    ("onnx", False): f"""import onnxruntime

session = onnxruntime.InferenceSession("{FOLDER}/{onnx.MODEL}")
vectors = session.run(["{onnx.OUTPUT}"], {{"pixel_values": pixels}})[0]  # [B, 3, S, S] float32 in [-1, 1]
""",
    ("model2vec", True): f"""from model2vec import StaticModel

vectors = StaticModel.from_pretrained("{FOLDER}").encode(["The ferry left at nine."])
""",
}
