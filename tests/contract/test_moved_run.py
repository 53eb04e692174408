"""A run does not depend on where it was made: other working directories, moved data, a base model that is gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa import api
from openjepa.cli import main
from openjepa.core.errors import UserError
from openjepa.core.values import read_yaml
from openjepa.data.text.sources import DataConfig
from tests.tiny import TINY

TOPICS = ("a parcel that came late", "an invoice with a wrong sum", "a door that does not open")
SETTINGS = (*TINY, "data.eval_fraction=0.2", "data.label=topic", "train.steps=4", "train.checkpoint_every=2")


def write_corpus(file: Path, count: int = 200) -> None:
    rows = [{"text": f"{TOPICS[i % 3]} number {i} of week {i % 7}", "topic": str(i % 3)} for i in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> api.Run:
    """A run that was started with a relative path, in a folder that is left afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    write_corpus(home / "corpus.jsonl")
    monkeypatch.chdir(home)
    run = api.train("t_jepa", out=tmp_path / "run", overrides=[*SETTINGS, "data.source=corpus.jsonl"], progress=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return run


def test_relative_paths_are_kept_absolute(run: api.Run, tmp_path: Path) -> None:
    assert read_yaml(run.folder.config_file)["data"]["source"] == str(tmp_path / "home" / "corpus.jsonl")
    assert len(run.held_out_texts()) > 10
    assert run.evaluate().measures


def test_only_what_names_files_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories").mkdir()  # the synthetic world is no folder, even beside one of its name
    write_corpus(tmp_path / "a.jsonl")
    for given, kept in {
        "stories": "stories",
        "owner/name": "owner/name",
        "missing.jsonl": "missing.jsonl",
        "a.jsonl": str(tmp_path / "a.jsonl"),
        "*.jsonl": str(tmp_path / "*.jsonl"),
        "stories/": str(tmp_path / "stories"),
    }.items():
        assert DataConfig(source=given).with_absolute_paths().source == kept


def test_moved_data_is_named_with_a_way_on(run: api.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(tmp_path / "home", tmp_path / "archive")
    for verb in (["eval"], ["similar", "one text", "another"]):
        assert main([verb[0], str(run.path), *verb[1:]]) == 2
        error = capsys.readouterr().err
        assert f"data.source={tmp_path / 'home' / 'corpus.jsonl'}: there is nothing of that name" in error
        assert f"openjepa config move {run.path} data.source=NEW" in error
    new = tmp_path / "archive" / "corpus.jsonl"
    assert main(["config", "move", str(run.path), f"data.source={new}"]) == 0
    assert capsys.readouterr().out.strip() == f"data.source: {tmp_path / 'home' / 'corpus.jsonl'} -> {new}"
    assert main(["eval", str(run.path)]) == 0


def test_resume_takes_new_positions_and_is_the_same_run(run: api.Run, tmp_path: Path, capfd) -> None:
    shutil.move(tmp_path / "home", tmp_path / "archive")
    half = tmp_path / "half"
    shutil.copytree(run.path, half)
    shutil.rmtree(half / "checkpoints" / "step-000004")
    new = tmp_path / "archive" / "corpus.jsonl"
    assert main(["train", "--resume", str(half), f"source={new}", "--no-eval"]) == 0
    error = capfd.readouterr().err
    assert f"data.source: {tmp_path / 'home' / 'corpus.jsonl'} -> {new}" in error
    assert "the data have changed" not in error
    texts = ["a parcel", "an invoice"]
    np.testing.assert_array_equal(api.load(half).encode(texts), run.encode(texts))


def test_resume_says_if_the_data_are_others(run: api.Run, tmp_path: Path, capfd) -> None:
    write_corpus(tmp_path / "other.jsonl", 150)
    shutil.rmtree(run.folder.checkpoints / "step-000004")
    api.train("", out=run.path, resume=True, overrides=[f"data.source={tmp_path / 'other.jsonl'}"], progress=False)
    assert "the data have changed since the run began: 200 documents" in capfd.readouterr().err


def test_other_settings_of_a_run_are_fixed(run: api.Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.folder.config_file.read_text()
    assert main(["train", "--resume", str(run.path), "train.lr=0.1"]) == 2
    error = capsys.readouterr().err
    assert "train.lr cannot be changed in a run that exists" in error
    assert "data.source" in error
    with pytest.raises(UserError, match="nothing of that name"):
        api.relocate(run.path, ["data.source=/nowhere/corpus.jsonl"])
    assert run.folder.config_file.read_text() == before


def test_a_run_shows_itself_in_one_line(run: api.Run, tmp_path: Path) -> None:
    assert repr(run).startswith("Run(t_jepa, step 4, ")
    assert str(run.path)[-10:] in repr(run)
    long = tmp_path / ("deep" * 20) / "run"
    shutil.copytree(run.path, long)
    assert len(repr(api.load(long))) <= 80


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder of transformers with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModel

    folder = tmp_path_factory.mktemp("base")
    words = sorted({word for topic in TOPICS for word in topic.split()} | {"number", "of", "week"})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *map(str, range(200))]
    backend = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocab)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(vocab[:5])
    backend.save(str(folder / "tokenizer.json"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = AutoConfig.for_model("bert", vocab_size=len(vocab), max_position_embeddings=64, **sizes)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_run_needs_its_base_encoder_no_more(base: Path, tmp_path: Path, capfd) -> None:
    """Its folder is gone: the run resumes bit for bit, and is compared with the very initialisation that it had."""
    write_corpus(tmp_path / "corpus.jsonl")
    moving = tmp_path / "moving"
    shutil.copytree(base, moving)
    overrides = [*SETTINGS, f"data.source={tmp_path / 'corpus.jsonl'}", f"encoder.name={moving}"]
    run = api.train("t_jepa", out=tmp_path / "run", overrides=overrides, progress=False)
    texts = ["a parcel that came late", "an invoice"]
    vectors, start = run.encode(texts), run.evaluate().to_json()
    half = tmp_path / "half"
    shutil.copytree(run.path, half)
    shutil.rmtree(half / "checkpoints" / "step-000004")
    shutil.rmtree(moving)
    resumed = api.train("", out=half, resume=True, progress=False)
    np.testing.assert_array_equal(resumed.encode(texts), vectors)
    assert resumed.evaluate().to_json() == start
    assert main(["train", "--resume", str(half), f"encoder.name={base}", "--no-eval"]) == 0
    assert f"encoder.name: {moving} -> {base}" in capfd.readouterr().err
