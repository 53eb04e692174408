"""Texts a second of `run.encode` and of other ways to run the same weights, by turns in one process.

    python benchmarks/bench_embed.py --model path/to/sentence-transformers-folder
    python benchmarks/bench_embed.py --model FOLDER --short sentences.txt --paragraphs articles.jsonl --json

Compared are `SentenceTransformer.encode` in fp32 and with bf16 weights, onnxruntime on our own export, and `run.encode`
in fp32 and bf16. Without files of your own, texts come from the synthetic stories world: sentences, and five of them
joined to a paragraph. Ratios are medians over rounds; machines are noisy, so only ratios of one run mean something.
Texts are cut at the model's limit by all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import openjepa
from openjepa.data.files.records import Counts
from openjepa.data.text.sources import DataConfig, documents
from openjepa.encoding.rows import text_rows
from openjepa.evals.features import cosine_rows
from openjepa.run.opened import Run

Encode = Callable[[Sequence[str]], np.ndarray]
BASE = "sentence-transformers, fp32"


def untrained_run(model: str, folder: Path) -> Run:
    """A run that starts from `model` and is trained for one step at a rate that changes nothing."""
    settings = {"encoder.name": model, "encoder.max_len": None, "encoder.lr_scale": 1e-12, "data.world_documents": 200}
    small = {"train.steps": 1, "train.batch_tokens": 0, "train.batch_size": 4}
    return openjepa.train("t_jepa", out=folder, progress=False, **settings, **small)


def contestants(model: str, folder: Path) -> dict[str, Encode]:
    """Every way to encode, by name."""
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(model, device="cpu")
    theirs_bf16 = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": torch.bfloat16})
    run = untrained_run(model, folder / "run").to("cpu", "32")
    run_bf16 = run.to(precision="bf16")
    found: dict[str, Encode] = {
        BASE: lambda texts: theirs.encode(list(texts), show_progress_bar=False),
        "sentence-transformers, bf16": lambda texts: theirs_bf16.encode(list(texts), show_progress_bar=False),
        "openjepa, fp32": lambda texts: run.encode(texts, long="cut"),
        "openjepa, bf16": lambda texts: run_bf16.encode(texts, long="cut"),
    }
    run.export("onnx", folder / "onnx")
    found["onnxruntime, fp32"] = by_onnxruntime(folder / "onnx")
    return found


def by_onnxruntime(folder: Path, batch: int = 32) -> Encode:
    """Encode with the exported graph: texts sorted by length, `batch` at a time."""
    import onnxruntime
    from tokenizers import Tokenizer

    described = json.loads((folder / "export.json").read_text())
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(described["max_length"])
    tokenizer.enable_padding(pad_id=described["pad_id"], pad_token=described["pad_token"])

    def encode(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: np.ndarray | None = None
        for start in range(0, len(order), batch):
            numbers = order[start : start + batch]
            rows = tokenizer.encode_batch([texts[i] for i in numbers])
            fed = {
                "input_ids": np.array([row.ids for row in rows], dtype=np.int64),
                "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64),
            }
            part = session.run(["sentence_embedding"], fed)[0]
            vectors = np.empty((len(texts), part.shape[1]), dtype=np.float32) if vectors is None else vectors
            vectors[numbers] = part
        assert vectors is not None
        return vectors

    return encode


def sets_of_texts(args: argparse.Namespace) -> dict[str, list[str]]:
    """Short texts and paragraphs, from files or from the stories world."""
    made = [document.text for document in islice(documents(DataConfig(source="stories"), "train"), args.texts)]
    sentences = [part + "." for text in made for part in text.split(". ")]
    paragraphs = [" ".join(sentences[i : i + 5]) * 3 for i in range(0, len(sentences) - 5, 5)]
    short = texts_of(args.short) if args.short else sentences
    return {
        "short": short[: args.texts],
        "paragraphs": (texts_of(args.paragraphs) if args.paragraphs else paragraphs)[: args.texts // 4],
    }


def texts_of(source: str) -> list[str]:
    return [row.text for row in text_rows(source, "text", "lines", Counts()) if row.text]


def measured(ways: dict[str, Encode], texts: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Texts a second of each way, its ratio to BASE, and the smallest cosine with its vectors."""
    expected = ways[BASE](texts[:200])
    near = {name: float(cosine_rows(encode(texts[:200]), expected).min()) for name, encode in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, encode in ways.items():
            began = time.perf_counter()
            encode(texts)
            seconds[name].append(time.perf_counter() - began)
    return {
        name: {
            "texts_per_s": round(len(texts) / statistics.median(spent), 1),
            "ratio": round(statistics.median(base / own for base, own in zip(seconds[BASE], spent, strict=True)), 2),
            "smallest_cosine": round(near[name], 6),
        }
        for name, spent in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a sentence-transformers folder or hub id")
    parser.add_argument("--short", help="a file of short texts")
    parser.add_argument("--paragraphs", help="a file of longer texts")
    parser.add_argument("--texts", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ways = contestants(args.model, Path(folder))
        found = {name: measured(ways, texts, args.rounds) for name, texts in sets_of_texts(args).items()}
    if args.json:
        json.dump(found, sys.stdout, indent=2)
        return
    for name, rows in found.items():
        print(f"\n{name}")
        for way, figures in rows.items():
            print(
                f"  {way:30} {figures['texts_per_s']:9.1f} texts/s  {figures['ratio']:5.2f} x  "
                f"smallest cosine {figures['smallest_cosine']:.6f}"
            )


if __name__ == "__main__":
    main()
