"""Which tokenizer a run gets, and that its encoder's embedding fits it. Folders on the spot, no network."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa import api
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext
from openjepa.core.vocabulary import NamedEncoder, Vocabulary
from openjepa.data.loading.loader import train_batches
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.choice import TokenizerConfig, load_or_train, pretrained_tokenizer, train_tokenizer
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.preflight.checks import check_experiment, failed
from openjepa.recipes import lang_jepa
from tests.tiny import TINY, build_tiny, build_vl

WORDS = "the old library keeps every letter a traveller wrote from distant cities about rain music and bread".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(5 + i % 20)) + "." for i in range(300)]
TEXTS += [f" = {word.title()} of cities and rain = " for word in WORDS]
SIZES = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
}


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    file = tmp_path / "wiki.txt"
    file.write_text("\n".join(TEXTS))
    return DataConfig(source=str(file), eval_fraction=0.2)


def bare(folder: Path, kind: str = "distilbert", **more: int) -> Path:
    """A folder with an architecture and nothing else."""
    from transformers import AutoConfig

    AutoConfig.for_model(kind, vocab_size=30522, max_position_embeddings=60, **SIZES[kind], **more).save_pretrained(
        folder
    )
    assert [file.name for file in folder.iterdir()] == ["config.json"]
    return folder


def whole(folder: Path, texts: list[str]) -> Path:
    """A folder with weights and a vocabulary learned from these texts."""
    from transformers import AutoConfig, AutoModel

    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=300), texts)
    config = AutoConfig.for_model("distilbert", vocab_size=tokenizer.vocab_size, **SIZES["distilbert"])
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return folder


def chosen(data: DataConfig, kept: Path, folder: Path, weights: bool, **settings: str) -> list[int]:
    cfg = TokenizerConfig(vocab_size=320, **settings)
    return load_or_train(cfg, data, kept, NamedEncoder(str(folder), weights)).encode([TEXTS[3]])[0].tolist()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_an_architecture_alone_learns_its_words_from_the_data(
    kind: str, data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bare(tmp_path / kind, kind)
    settings = (
        f"encoder.name={folder}",
        "encoder.weights=false",
        f"data.source={data.source}",
    )
    experiment = build_tiny(tmp_path / "assets", *settings)
    said = capsys.readouterr().err
    assert f"openjepa: encoder.name={folder} has no tokenizer files: a WordPiece vocabulary is learned" in said
    assert said.count("\n") == 1
    collate = experiment.collate
    table = experiment.method.student.model.get_input_embeddings()
    assert table.num_embeddings == collate.tokenizer.vocab_size <= 400
    assert table.weight[1:].norm(dim=1).min() > 0  # only [PAD] may be zero; in RoBERTa's config id 1 is
    batch = next(train_batches(experiment, 0))
    shown = [collate.tokenizer.decode(ids[valid].tolist()) for ids, valid in zip(batch.ids, batch.valid, strict=True)]
    assert set(re.findall("[a-z]+", " ".join(shown))) <= set(re.findall("[a-z]+", " ".join(TEXTS).lower()))
    assert experiment.unknown().share == 0
    assert list(failed(check_experiment(experiment))) == []


def test_the_same_choice_from_settings_that_name_it(data: DataConfig, tmp_path: Path) -> None:
    folder = bare(tmp_path / "encoder")
    unset = chosen(data, tmp_path / "a", folder, weights=False)
    assert chosen(data, tmp_path / "b", folder, weights=False, kind="wordpiece") == unset
    as_bytes = chosen(data, tmp_path / "c", folder, weights=False, kind="bytes")
    assert len(as_bytes) == len(TEXTS[3])


def test_a_set_kind_wins_over_the_encoders_own_without_weights(data: DataConfig, tmp_path: Path) -> None:
    folder = whole(tmp_path / "encoder", ["entirely other words stand here, jumping quickly over vexed foxes"] * 99)
    own = pretrained_tokenizer(str(folder)).encode([TEXTS[3]])[0].tolist()
    assert chosen(data, tmp_path / "a", folder, weights=False) == own
    assert chosen(data, tmp_path / "b", folder, weights=True) == own
    learned = chosen(data, tmp_path / "c", folder, weights=False, kind="wordpiece")
    assert len(learned) < len(own)
    with pytest.raises(UserError, match=r"tokenizer\.kind=wordpiece does not go with the pretrained weights"):
        chosen(data, tmp_path / "d", folder, weights=True, kind="wordpiece")


def test_beside_weights_another_vocabulary_must_be_the_same(data: DataConfig, tmp_path: Path) -> None:
    folder, other = whole(tmp_path / "one", TEXTS), whole(tmp_path / "other", TEXTS[::-1] + ["zebra crossing"] * 9)
    shutil.copytree(folder, tmp_path / "copy")
    own = chosen(data, tmp_path / "a", folder, weights=True)
    assert chosen(data, tmp_path / "b", folder, weights=True, kind=str(tmp_path / "copy")) == own
    with pytest.raises(UserError, match=r"tokenizer\.kind=.*other has other token ids than .*encoder\.name=.*one"):
        chosen(data, tmp_path / "c", folder, weights=True, kind=str(other))
    assert chosen(data, tmp_path / "d", folder, weights=False, kind=str(other)) != own
    (folder / "tokenizer.json").unlink()  # weights whose tokenizer lies elsewhere
    assert chosen(data, tmp_path / "e", folder, weights=True, kind=str(tmp_path / "copy")) == own
    with pytest.raises(UserError, match=r"encoder\.name=.*has pretrained weights and no tokenizer files"):
        chosen(data, tmp_path / "f", folder, weights=True)


def test_what_was_chosen_is_loaded_without_looking_again(data: DataConfig, tmp_path: Path) -> None:
    folder = bare(tmp_path / "encoder")
    first = chosen(data, tmp_path / "kept", folder, weights=False)
    shutil.rmtree(folder)
    Path(data.source).unlink()
    assert chosen(data, tmp_path / "kept", folder, weights=False) == first


def test_a_run_from_a_bare_config_is_trained_loaded_and_read(data: DataConfig, tmp_path: Path) -> None:
    folder = bare(tmp_path / "encoder")
    settings = [*TINY, f"encoder.name={folder}", "encoder.weights=false", f"data.source={data.source}", "steps=2",
                "data.eval_fraction=0.2", "health_every=2", "checkpoint_every=2"]  # fmt: skip
    settings.remove("data.documents=400")
    run = api.train("t_jepa", out=tmp_path / "run", overrides=settings, progress=False)
    assert run.config.tokenizer.kind is None  # and the run keeps what that meant
    kept = run.encode(TEXTS[:8])
    shutil.rmtree(folder)
    again = api.load(tmp_path / "run")
    assert np.array_equal(again.encode(TEXTS[:8]), kept)
    assert again.fresh().method.student.model.config.vocab_size == again.experiment.collate.tokenizer.vocab_size
    notes = json.loads((tmp_path / "run" / "summary.json").read_text())["notes"]
    assert notes["unknown_share"] == 0
    assert notes["data"]["tokens to train on"] > 1000


def test_other_recipes_choose_alike(data: DataConfig, tmp_path: Path) -> None:
    folder = bare(tmp_path / "encoder", "bert")
    settings = (f"encoder.name={folder}", "encoder.weights=false", "data.eval_fraction=0.2")
    experiment = build_tiny(tmp_path / "sentences", *settings, recipe=lang_jepa)
    rows = experiment.collate.rows
    assert experiment.method.student.model.config.vocab_size == rows.tokenizer.vocab_size
    assert experiment.unknown().share < 0.01
    images = build_vl(tmp_path / "images", f"text_encoder.name={folder}", "text_encoder.weights=false")
    reader = images.method.reader.encoder.module if hasattr(images.method.reader.encoder, "module") else None
    found = images.method.reader.encoder if reader is None else reader
    assert found.model.config.vocab_size == images.collate.tokenizer.vocab_size
    with pytest.raises(UserError, match=r"text_encoder\.name=.*has pretrained weights and no tokenizer files"):
        build_vl(tmp_path / "pretrained", f"text_encoder.name={folder}")


def test_an_embedding_grows_for_tokens_that_pretrained_weights_lack(tmp_path: Path) -> None:
    folder = whole(tmp_path / "encoder", TEXTS)
    plain = build_encoder(EncoderConfig(name=str(folder)), Vocabulary(10, 0), BuildContext(tmp_path / "a"))
    size = plain.model.config.vocab_size
    grown = build_encoder(EncoderConfig(name=str(folder)), Vocabulary(size + 2, 0), BuildContext(tmp_path / "b"))
    before, after = (each.model.get_input_embeddings().weight for each in (plain, grown))
    assert (len(before), len(after)) == (size, size + 2)
    assert torch.equal(before, after[:size])
    assert json.loads((tmp_path / "b" / "encoder" / "config.json").read_text())["vocab_size"] == size + 2


def test_weights_that_lack_tensors_are_refused(tmp_path: Path) -> None:
    """transformers would make up the missing ones and only mention it."""
    from safetensors.torch import load_file, save_file

    folder = whole(tmp_path / "encoder", TEXTS)
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "attention" in name)
    tensors.pop(gone)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"encoder\.name=.*its weights lack 1 of \d+ tensors of a DistilBertModel"):
        build_encoder(EncoderConfig(name=str(folder)), Vocabulary(300, 0), BuildContext(tmp_path))
