"""Tokenizers (deterministic, hostile text, pretrained wrapping) and cached corpora (rows, splits, cache)."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from openjepa.core.errors import ConfigError, UserError
from openjepa.core.tasks import Classification
from openjepa.data.text import corpus as corpus_module
from openjepa.data.text.corpus import pad
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig, documents
from openjepa.data.tokenizers.choice import load_or_train, pretrained_tokenizer, train_tokenizer
from openjepa.data.tokenizers.text_tokenizer import SPECIALS, TextTokenizer, TokenizerConfig
from openjepa.experiments.text import train_and_eval
from openjepa.tasks.texts import text_tasks

WORDS = "the cat sat on a mat and looked at every bird in that old garden while it rained".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(3 + i % 40)) + f" number {i}" for i in range(400)]


@pytest.fixture
def source(tmp_path: Path) -> DataConfig:
    rows = [{"text": text, "topic": "even" if i % 2 == 0 else "odd"} for i, text in enumerate(TEXTS)]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(source=str(path), eval_fraction=0.2, label="topic")


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(TokenizerConfig(vocab_size=400), TEXTS)


@pytest.fixture
def bert_like(tmp_path: Path) -> Path:
    """A folder with a tokenizer.json that wraps texts in [CLS] ... [SEP] and asks for truncation and padding."""
    others = [f"word{i}" for i in range(100)]  # a vocabulary of a few words is refused
    vocab = {token: i for i, token in enumerate(["[SEP]", "[MASK]", "[PAD]", "[UNK]", "[CLS]", *WORDS, *others])}
    backend = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(["[SEP]", "[MASK]", "[PAD]", "[UNK]", "[CLS]"])
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 4), ("[SEP]", 0)]
    )
    backend.enable_truncation(5)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "bytes"])
def test_training_is_a_function_of_the_texts(kind: str) -> None:
    cfg = TokenizerConfig(kind=kind, vocab_size=400)
    first, second = train_tokenizer(cfg, TEXTS), train_tokenizer(cfg, iter(TEXTS))
    assert first.backend.to_str() == second.backend.to_str()
    assert first.vocab_size <= 400
    assert [first.backend.token_to_id(token) for token in SPECIALS] == [0, 1, 2, 3, 4]
    assert (first.pad_id, first.mask_id) == (0, 4)
    assert first.special_ids == (0, 2, 3, 4)  # [UNK] stands for text


def test_wordpiece_letters_are_numbered_in_order(tokenizer: TextTokenizer) -> None:
    letters = sorted({letter for text in TEXTS for letter in text if letter != " "})
    ids = [tokenizer.backend.token_to_id(token) for token in (*letters, *(f"##{letter}" for letter in letters))]
    assert ids == list(range(5, 5 + 2 * len(letters)))  # the library's own order is a hash map's


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "bytes"])
def test_seen_text_comes_back(kind: str) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=400), TEXTS)
    for text, ids in zip(TEXTS[:50], tokenizer.encode(TEXTS[:50]), strict=True):
        assert tokenizer.decode(ids) == text
        assert ids.dtype == np.int32


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
def test_byte_level_kinds_lose_nothing(kind: str) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=400, lowercase=False), TEXTS)
    for text in ("Ünseen 😀\t日本語\r\n  two  spaces ", "\x01\x7f\ufffd", "a" * 100_000):
        assert tokenizer.decode(tokenizer.encode([text])[0]) == text


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "bytes"])
def test_special_tokens_written_in_a_text_are_text(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=400), TEXTS)
    tokenizer.save(tmp_path / "tokenizer.json")
    for each in (tokenizer, TextTokenizer.load(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert not set(each.special_ids) & set(each.encode(["the [MASK] sat [SEP] [PAD]"])[0].tolist())


def test_empty_and_unknown_texts_have_at_least_one_token(tokenizer: TextTokenizer) -> None:
    assert [ids.tolist() for ids in tokenizer.encode(["", "  ", "😀"])] == [[1], [1], [1]]
    assert [len(ids) for ids in tokenizer.encode(["the cat sat on", "the"], max_len=2)] == [2, 1]


def test_pretrained_folder_wraps_and_marks_its_specials(bert_like: Path) -> None:
    tokenizer = pretrained_tokenizer(str(bert_like))
    (ids,) = tokenizer.encode(["the cat sat on a mat"])
    assert ids.tolist() == [4, 5, 6, 7, 8, 9, 10, 0]  # whole, though the file asks for truncation and padding
    assert tokenizer.special_mask(len(ids)).tolist() == [True, *[False] * 6, True]
    assert tokenizer.encode(["the cat sat on a mat"], max_len=5)[0].tolist() == [4, 5, 6, 7, 0]
    assert (tokenizer.pad_id, tokenizer.mask_id) == (2, 1)
    assert tokenizer.special_ids == (0, 1, 2, 4)


def test_vocabulary_without_special_tokens_gets_them_at_its_end() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    tokenizer = TextTokenizer(backend)
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.sep_id, tokenizer.vocab_size) == (3, 4, 5, 6)


def test_load_or_train_keeps_what_it_made(source: DataConfig, tmp_path: Path) -> None:
    cfg = TokenizerConfig(vocab_size=400)
    first = load_or_train(cfg, source, tmp_path / "assets")
    Path(source.source).unlink()  # a loaded run does not need its data
    assert load_or_train(cfg, source, tmp_path / "assets").fingerprint == first.fingerprint


def test_tokenizer_learns_from_training_documents_only(source: DataConfig, tmp_path: Path) -> None:
    learnt = train_tokenizer(TokenizerConfig(vocab_size=400), [d.text for d in documents(source, "train")])
    assert load_or_train(TokenizerConfig(vocab_size=400), source, tmp_path).fingerprint == learnt.fingerprint


def test_wrong_kinds_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'wordpiece'"):
        TokenizerConfig.load({"kind": "wordpeice"})
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer"):
        pretrained_tokenizer(str(tmp_path))
    with pytest.raises(UserError, match=r"tokenizer\.kind=gone\.json: no such file or folder"):
        pretrained_tokenizer("gone.json")


def test_rows_hold_every_token_of_every_long_enough_document(source: DataConfig, tokenizer: TextTokenizer) -> None:
    train, held = train_and_eval(source, TextRows(tokenizer, 16))
    for split, corpus in (("train", train), ("eval", held)):
        rows = [corpus[i] for i in range(len(corpus))]
        assert corpus.lengths.tolist() == [len(row.ids) for row in rows]
        assert max(corpus.lengths) == 16
        kept: dict[int, list[int]] = {}
        for row in rows:
            kept.setdefault(row.document, []).extend(row.ids.tolist())
        texts = [document.text for document in documents(source, split)]
        assert list(kept) == list(range(len(texts)))
        for text, ids in zip(texts, kept.values(), strict=True):
            whole = tokenizer.encode([text])[0].tolist()
            tail = len(whole) % 16
            assert ids == (whole[:-tail] if 0 < tail < 4 else whole)  # a tail under 4 tokens is dropped
    assert train.counts["documents"] == 400
    assert train.counts["rows to train on"] == len(train)
    assert train.counts["rows held out"] == len(held)
    assert train.counts["tail of fewer than 4 tokens"] > 0


def test_rows_of_a_wrapping_tokenizer_are_each_wrapped(source: DataConfig, bert_like: Path) -> None:
    train, _ = train_and_eval(source, TextRows(pretrained_tokenizer(str(bert_like)), 12))
    for i in range(len(train)):
        row = train[i]
        assert (row.ids[0], row.ids[-1]) == (4, 0)
        assert len(row.ids) <= 12
        assert np.flatnonzero(row.special).tolist() == [0, len(row.ids) - 1]


def test_origins_and_labels_follow_the_rows(source: DataConfig, tokenizer: TextTokenizer) -> None:
    train, _ = train_and_eval(source, TextRows(tokenizer, 16))
    by_origin = {document.id: document for document in documents(source)}
    for i in range(0, len(train), 7):
        document = by_origin[train.origin(i)]
        assert tokenizer.decode(train[i].ids).split()[0].strip("#") in document.text
        assert train.labels[i] == document.label


def test_building_costs_nothing_until_used(tokenizer: TextTokenizer) -> None:
    train, _ = train_and_eval(DataConfig(source="gone.jsonl"), TextRows(tokenizer, 16))
    with pytest.raises(UserError, match="matches no file"):
        len(train)


def test_cache_is_hit_and_missed_when_it_should(
    source: DataConfig, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[Path] = []
    build = corpus_module.build
    monkeypatch.setattr(corpus_module, "build", lambda folder, *rest: (builds.append(folder), build(folder, *rest)))

    def lengths(cfg: DataConfig = source, using: TextTokenizer = tokenizer, max_len: int = 16) -> list[int]:
        return [len(corpus) for corpus in train_and_eval(cfg, TextRows(using, max_len))]

    first = lengths()
    assert lengths() == first
    assert len(builds) == 1  # both splits in one pass, and the second use reads the cache
    lengths(max_len=20)
    lengths(using=train_tokenizer(TokenizerConfig(kind="bytes"), ()))
    lengths(cfg=source.model_copy(update={"min_words": 5}))
    assert len(set(builds)) == len(builds) == 4
    path = Path(source.source)
    os.utime(path, ns=(1, 1))
    lengths()
    assert len(set(builds)) == 5
    (builds[-1] / "train.arrow").write_bytes(b"damaged")
    assert lengths() == first  # made again
    assert len(builds) == 6
    assert not list(builds[0].parent.glob("*.tmp"))


def test_a_failed_build_leaves_no_cache(source: DataConfig, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    small = source.model_copy(update={"eval_fraction": 1e-9})
    with pytest.raises(UserError, match=r"data\.eval_fraction"):
        len(train_and_eval(small, TextRows(tokenizer, 16))[0])
    with pytest.raises(UserError, match=r"data\.eval_fraction"):  # and not an empty corpus the second time
        len(train_and_eval(small, TextRows(tokenizer, 16))[0])


def test_cache_that_cannot_be_written_is_a_user_error(
    source: DataConfig, tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("OPENJEPA_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="OPENJEPA_CACHE"):
        len(train_and_eval(source, TextRows(tokenizer, 16))[0])


def test_a_pickled_corpus_reads_the_same_rows(source: DataConfig, tokenizer: TextTokenizer) -> None:
    train, _ = train_and_eval(source, TextRows(tokenizer, 16))
    before = [train[i].ids.tolist() for i in range(len(train))]
    state = pickle.dumps(train)
    Path(source.source).unlink()  # a data loading process does not look at the source again
    after = pickle.loads(state)
    assert [after[i].ids.tolist() for i in range(len(after))] == before
    assert after[-1].ids.tolist() == before[-1]
    with pytest.raises(IndexError):
        after[len(after)]


def test_max_len_without_room_is_a_config_error(source: DataConfig, bert_like: Path) -> None:
    with pytest.raises(ConfigError, match="max_len=5 leaves 3 tokens"):
        train_and_eval(source, TextRows(pretrained_tokenizer(str(bert_like)), 5))


def test_pad() -> None:
    padded = pad([np.array([1, 2, 3], dtype=np.int32), np.array([4], dtype=np.int32)], fill=9)
    assert torch.equal(padded, torch.tensor([[1, 2, 3], [4, 9, 9]]))
    assert torch.equal(pad([np.array([True]), np.array([True, True])], 0), torch.tensor([[True, False], [True, True]]))


def test_tasks_probe_the_label_on_held_out_texts(source: DataConfig) -> None:
    (task,) = text_tasks(source)
    assert isinstance(task, Classification)
    assert task.classes == ("even", "odd")
    assert not set(task.train) & set(task.test)
    for text, label in zip(task.test, task.test_labels, strict=True):
        assert task.classes[label] == ("even" if int(text.split()[-1]) % 2 == 0 else "odd")
    assert text_tasks(source.model_copy(update={"label": None})) == []
