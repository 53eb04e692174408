"""A run that starts from a sentence-transformers model keeps its pooling, maps, unit length, prompts and limit."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.data.text.inputs import ReadingReport, TextInputs
from openjepa.evals.features import embed_all
from openjepa.export.bundle import export
from openjepa.export.source import Source
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.sentence_head import read_head
from openjepa.recipes import t_jepa
from tests.opened import in_process
from tests.tiny import TINY, build_tiny

pytest.importorskip("sentence_transformers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPOKEN = ["the", "a", "chef", "cook", "made", "soup", "broth", "train", "was", "late", "query", ":", "."]
WORDS = [*SPECIAL, *SPOKEN, *(f"word{number}" for number in range(60))]
TEXTS = ["the chef made soup", "a cook made broth .", "train", "the train was late . " * 20, "Late"]
LIMIT = 12


@dataclass(frozen=True)
class Shape:
    """Which modules stand behind the encoder."""

    pooling: str = "mean"
    dense: bool = False
    unit: bool = False
    prompt: bool = False
    lower_case: bool = False


SHAPES = {
    "mean": Shape(),
    "mean of unit length": Shape(unit=True),
    "cls": Shape("cls"),
    "max": Shape("max"),
    "last token": Shape("lasttoken"),
    "two maps": Shape(dense=True, unit=True),
    "a default prompt": Shape(prompt=True, unit=True),
    "case folded": Shape(lower_case=True),
}


def sentence_model(shape: Shape) -> Any:
    """A small BERT with a word-level vocabulary and these modules behind it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as plain:
        (Path(plain) / "vocab.txt").write_text("\n".join(WORDS))
        vocabulary = {word: number for number, word in enumerate(WORDS)}
        BertTokenizerFast(vocab=vocabulary, do_lower_case=not shape.lower_case).save_pretrained(plain)
        config = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                            intermediate_size=32, max_position_embeddings=64, initializer_range=0.4)  # fmt: skip
        BertModel(config).save_pretrained(plain)
        first = Transformer(plain, max_seq_length=LIMIT, do_lower_case=shape.lower_case)
    pooling: Any = shape.pooling
    modules: list[Any] = [first, Pooling(16, pooling)]
    if shape.dense:
        modules += [Dense(16, 10, activation_function=nn.Tanh()), Dense(10, 6, bias=False, activation_function=None)]
    if shape.unit:
        modules.append(Normalize())
    prompts: Any = {"prompts": {"query": "query : "}, "default_prompt_name": "query"} if shape.prompt else {}
    return SentenceTransformer(modules=modules, device="cpu", **prompts)


def started_from(folder: Path, assets: Path) -> Experiment:
    settings = [s for s in TINY if not s.startswith(("tokenizer", "encoder"))]
    return build_tiny(assets, f"encoder.name={folder}", "encoder.max_len=null", "data.documents=60", settings=settings)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_untouched_start_equals_the_library(shape: Shape, tmp_path: Path) -> None:
    model = sentence_model(shape)
    model.save_pretrained(str(tmp_path / "start"), create_model_card=False)
    expected = model.encode(TEXTS)
    experiment = started_from(tmp_path / "start", tmp_path / "assets")
    inputs = experiment.embedding.inputs
    assert isinstance(inputs, TextInputs)
    assert inputs.max_len == LIMIT
    report = ReadingReport(inputs, "cut")
    vectors = embed_all(experiment.method, inputs, TEXTS, report=report)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert report.long_texts == 1
    assert "cut" in report.sentences()[0]
    again = t_jepa.build(
        t_jepa.Config.load(overrides=[*(s for s in TINY if s.startswith(("data", "train", "predictor"))),
                                      f"encoder.name={tmp_path / 'gone'}", "encoder.max_len=null"]),
        BuildContext(tmp_path / "assets"),
    )  # fmt: skip
    np.testing.assert_allclose(
        embed_all(again.method, again.embedding.inputs, TEXTS[:3]), expected[:3], atol=1e-5
    )  # from the assets alone


def test_a_prompt_is_chosen_by_its_name(tmp_path: Path) -> None:
    model = sentence_model(SHAPES["a default prompt"])
    model.prompts = {"query": "query : ", "soup": "soup . "}
    model.save_pretrained(str(tmp_path / "start"), create_model_card=False)
    inputs = started_from(tmp_path / "start", tmp_path / "assets").embedding.inputs
    assert isinstance(inputs, TextInputs)
    for name in ("query", "soup", None):
        prompt = "" if name is None else model.prompts[name]
        expected = model[0].tokenizer([prompt + TEXTS[0]])["input_ids"][0]
        assert inputs.with_prompt(name).rows_of(TEXTS[:1])[0][0].tolist() == expected
    with pytest.raises(UserError, match=r"no prompt 'passage'; it has query, soup"):
        inputs.with_prompt("passage")


def test_long_texts_keep_unit_length(tmp_path: Path) -> None:
    sentence_model(SHAPES["mean of unit length"]).save_pretrained(str(tmp_path / "start"), create_model_card=False)
    experiment = started_from(tmp_path / "start", tmp_path / "assets")
    vectors = embed_all(experiment.method, experiment.embedding.inputs, TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_plain_transformers_folder_has_no_head(tmp_path: Path) -> None:
    sentence_model(Shape()).save_pretrained(str(tmp_path), create_model_card=False)
    (tmp_path / "modules.json").unlink()
    assert read_head(str(tmp_path)) is None
    assert PretrainedEncoder(str(tmp_path)).head is None


def test_old_pooling_settings_are_read(tmp_path: Path) -> None:
    sentence_model(Shape()).save_pretrained(str(tmp_path), create_model_card=False)
    old = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(old))
    head = read_head(str(tmp_path))
    assert head is not None
    assert head.pooling == "cls"


def test_modules_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    sentence_model(Shape(dense=True)).save_pretrained(str(tmp_path), create_model_card=False)
    file = tmp_path / "modules.json"
    modules = json.loads(file.read_text())
    for kind in ("sentence_transformers.models.LSTM", "my_module.Normalize"):
        file.write_text(json.dumps([modules[0], modules[1], {**modules[2], "type": kind}]))
        with pytest.raises(UserError, match=f"{kind}.* cannot be kept"):
            read_head(str(tmp_path))
    file.write_text(json.dumps(modules))
    (tmp_path / modules[2]["path"] / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"needs model\.safetensors"):
        read_head(str(tmp_path))


def test_two_poolings_at_once_are_refused(tmp_path: Path) -> None:
    sentence_model(Shape()).save_pretrained(str(tmp_path), create_model_card=False)
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(both))
    with pytest.raises(UserError, match="pools by pooling_mode_cls_token and pooling_mode_mean_tokens"):
        read_head(str(tmp_path))


@pytest.mark.parametrize("name", ["cls", "max", "two maps", "a default prompt"])
@pytest.mark.parametrize("to", ["sentence-transformers", "onnx"])
def test_exports_keep_it_too(name: str, to: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    sentence_model(SHAPES[name]).save_pretrained(str(tmp_path / "start"), create_model_card=False)
    source = source_of(started_from(tmp_path / "start", tmp_path / "assets"))
    (proof,) = export(source, to, tmp_path / "out", opened=in_process).proofs
    assert proof.holds
    if to == "sentence-transformers":
        loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
        assert loaded.max_seq_length == LIMIT
        assert loaded.prompts.get("query", "") == ("query : " if SHAPES[name].prompt else "")


def test_maps_have_no_place_in_a_plain_transformers_folder(tmp_path: Path) -> None:
    sentence_model(SHAPES["two maps"]).save_pretrained(str(tmp_path / "start"), create_model_card=False)
    source = source_of(started_from(tmp_path / "start", tmp_path / "assets"))
    with pytest.raises(UserError, match="linear maps behind its pooling"):
        export(source, "transformers", tmp_path / "out", opened=in_process)


def source_of(experiment: Experiment) -> Source:
    """What an export is made of, without a run folder."""
    inputs = experiment.embedding.inputs
    assert isinstance(inputs, TextInputs)
    method = experiment.method.eval()
    return Source(
        name="start",
        embedding=experiment.embedding,
        encoder=method.encoders()["student"],
        vectors=lambda texts: embed_all(method, inputs, texts, report=ReadingReport(inputs, "cut")),
        query_vectors=lambda texts, prompted: pytest.fail("this model maps no queries"),
        held_out=list,
        card=lambda to, texts: "",
    )
