"""Open an export in a process of its own, without openjepa, and write the vectors of the given inputs.

    python opened.py FORMAT FOLDER INPUTS OUT [FILE]

FORMAT is sentence-transformers, transformers, onnx or model2vec; INPUTS a JSON list of texts or an .npz of images; OUT
an .npy file; FILE the model within an ONNX folder. Where queries are mapped otherwise than documents, their vectors
stand beside the documents' in each row. It imports what a user of the export imports, and nothing else.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def inputs_of(file):
    if file.suffix == ".json":
        return json.loads(file.read_text(encoding="utf-8"))
    from PIL import Image

    with np.load(file) as arrays:
        return [Image.fromarray(arrays[name]) for name in arrays.files]


def by_sentence_transformers(folder, inputs):
    from sentence_transformers import SentenceTransformer

    described = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    needs_code = described["needs_code"]
    model: Any = SentenceTransformer(str(folder), device="cpu", trust_remote_code=needs_code, local_files_only=True)
    options = {"batch_size": 8, "convert_to_numpy": True, "show_progress_bar": False}
    vectors = model.encode(inputs, **options)
    return np.concatenate([vectors, model.encode_query(inputs, **options)], 1) if described["maps_queries"] else vectors


def by_transformers(folder, inputs):
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    described = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    if described["reads"] == "texts":
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        inputs = [described["prompt"] + text for text in inputs]
        batch = tokenizer(inputs, padding=True, truncation=True, return_tensors="pt")
    else:
        batch = AutoImageProcessor.from_pretrained(folder, local_files_only=True)(inputs, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state[:, described["skipped_positions"] :]
    mask = batch["attention_mask"] if "attention_mask" in batch else torch.ones(states.shape[:2], dtype=torch.int64)
    if described["pooling"] == "cls":
        vectors = states[:, 0]
    elif described["pooling"] == "max":
        vectors = states.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
    elif described["pooling"] == "last":
        vectors = states[torch.arange(len(states)), mask.sum(1) - 1]
    else:
        vectors = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    if described["normalization"] == "unit":
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    return vectors.numpy()


def by_onnx(folder, inputs, file):
    import onnxruntime

    described = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    if described["reads"] == "texts":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.encode_special_tokens = True
        tokenizer.enable_truncation(described["max_length"])
        tokenizer.enable_padding(pad_id=described["pad_id"], pad_token=described["pad_token"])
        rows = tokenizer.encode_batch([described["prompt"] + text for text in inputs])
        fed = {
            "input_ids": np.array([row.ids for row in rows], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64),
        }
    else:
        from PIL import Image

        side = described["pixels"]
        mean = described["image_mean"]
        std = described["image_std"]
        resized = [image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for image in inputs]
        pixels = (np.stack([np.asarray(image) for image in resized]).astype(np.float32) / 255 - mean) / std
        fed = {"pixel_values": pixels.transpose(0, 3, 1, 2).astype(np.float32)}
    outputs = ["sentence_embedding", *(["query_embedding"] if described["maps_queries"] else [])]
    vectors: Any = session.run(outputs, fed)
    return np.concatenate(vectors, 1)


def by_model2vec(folder, inputs):
    from model2vec import StaticModel

    return StaticModel.from_pretrained(folder).encode(inputs)


def main():
    format_name, folder, given, out, *rest = sys.argv[1:]
    open_it = {
        "sentence-transformers": by_sentence_transformers,
        "transformers": by_transformers,
        "onnx": by_onnx,
        "model2vec": by_model2vec,
    }[format_name]
    vectors = open_it(Path(folder), inputs_of(Path(given)), *rest)
    if "openjepa" in sys.modules:
        raise SystemExit("opening the export imported openjepa")
    np.save(out, np.asarray(vectors, dtype=np.float32))


if __name__ == "__main__":
    main()
