"""How an export is used in its library: the code and the remarks of its model card."""

from __future__ import annotations

from openjepa.export import onnx
from openjepa.export.source import Source


def usage_of(to: str, reads_texts: bool, needs_code: bool) -> str:
    """Python that opens the export and embeds something."""
    code = USAGE[to, reads_texts]
    return code.replace(f'"{FOLDER}")', f'"{FOLDER}", trust_remote_code=True)') if needs_code else code


def notes_on(source: Source) -> str:
    """What is read otherwise than in openjepa."""
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
tokenizer.enable_truncation(json.load(open("{FOLDER}/export.json"))["max_length"])  # the network reads no more
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
