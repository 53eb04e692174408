"""Pretrained tokenizers read from the files that others keep them in: equal ids whatever the layout."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from openjepa.core.errors import UserError
from openjepa.data.tokenizers.byte_pairs import byte_letters
from openjepa.data.tokenizers.files import own_tokenizer, pretrained_tokenizer
from openjepa.data.tokenizers.text_tokenizer import SPECIALS

WORDS = "it's the cats' small garden where 12 birds sang 2024 songs, we're told; naïve café Ünï".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(4 + i % 9)) for i in range(200)]
STRANGE = [
    "",
    " ",
    "  two  spaces\n\n\ttab ",
    "Привет, мир!",
    "नमस्ते ภาษาไทย 日本語",
    "😀👩‍👧 I'LL 123456",
    "a" * 500,
    "<|endoftext|>",
]
URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    """Byte pairs with GPT-2's way of cutting text, learned by the library."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    return backend


def as_vocab_and_merges(backend: Tokenizer, folder: Path) -> None:
    backend.model.save(str(folder))


def as_gpt2_named_them(backend: Tokenizer, folder: Path) -> None:
    backend.model.save(str(folder))
    (folder / "vocab.json").rename(folder / "encoder.json")
    (folder / "merges.txt").rename(folder / "vocab.bpe")


def as_tiktoken(backend: Tokenizer, folder: Path) -> None:
    byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    lines = [
        base64.b64encode(bytes(byte_of[letter] for letter in token)) + f" {rank}".encode()
        for token, rank in sorted(backend.get_vocab().items(), key=lambda item: item[1])
    ]
    (folder / "gpt2.tiktoken").write_bytes(b"\n".join(lines) + b"\n")


def as_tokenizer_json(backend: Tokenizer, folder: Path) -> None:
    backend.save(str(folder / "tokenizer.json"))


LAYOUTS = pytest.mark.parametrize(
    "lay_out", [as_vocab_and_merges, as_gpt2_named_them, as_tiktoken, as_tokenizer_json], ids=lambda f: f.__name__
)


@LAYOUTS
def test_byte_pairs_give_the_same_ids_in_every_layout(
    lay_out: Callable[[Tokenizer, Path], None], reference: Tokenizer, tmp_path: Path
) -> None:
    lay_out(reference, tmp_path)
    tokenizer = pretrained_tokenizer(str(tmp_path))
    size = reference.get_vocab_size()
    assert size > 300  # some merges
    for text in (*TEXTS, *STRANGE):
        (ids,) = tokenizer.encode_content([text])
        assert ids.tolist() == reference.encode(text).ids
        assert tokenizer.decode(ids) == text
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.sep_id) == (
        size,
        size + 1,
        size + 2,
    )  # at its end
    assert tokenizer.unknown_id is None


def test_one_tiktoken_file_may_be_named_itself(reference: Tokenizer, tmp_path: Path) -> None:
    as_tiktoken(reference, tmp_path)
    file = tmp_path / "gpt2.tiktoken"
    named = pretrained_tokenizer(str(file))
    assert named.encode_content(TEXTS)[7].tolist() == reference.encode(TEXTS[7]).ids
    shutil.copy(file, tmp_path / "cl100k_base.tiktoken")
    with pytest.raises(UserError, match=r"holds 2 \.tiktoken files \(cl100k_base\.tiktoken, gpt2\.tiktoken\)"):
        pretrained_tokenizer(str(tmp_path))
    later = pretrained_tokenizer(str(tmp_path / "cl100k_base.tiktoken"))  # its model cuts numbers after three digits
    assert len(named.encode_content([" 2024"])[0]) == 1
    assert len(later.encode_content([" 2024"])[0]) > 2


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2"])
def test_gpt2_is_found_where_tiktoken_keeps_it(
    name: str, reference: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"tokenizer\.kind={name}: the hub .*cannot be reached.*{tmp_path / 'kept'}"):
        pretrained_tokenizer(name)
    (tmp_path / "kept").mkdir()
    as_gpt2_named_them(reference, tmp_path)
    for file in ("encoder.json", "vocab.bpe"):
        (tmp_path / file).rename(tmp_path / "kept" / hashlib.sha1((URL + file).encode()).hexdigest())
    found = pretrained_tokenizer(name)
    assert [ids.tolist() for ids in found.encode_content(TEXTS)] == [reference.encode(text).ids for text in TEXTS]


def test_roberta_wraps_texts_in_its_own_tokens(reference: Tokenizer, tmp_path: Path) -> None:
    as_vocab_and_merges(reference, tmp_path)
    words = json.loads((tmp_path / "vocab.json").read_text())
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = {token: i for i, token in enumerate([*specials, *sorted(words, key=words.__getitem__), "<mask>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    tokenizer, size = pretrained_tokenizer(str(tmp_path)), len(vocab)
    (ids,) = tokenizer.encode([TEXTS[3]])
    assert ids.tolist() == [0, *(i + 4 for i in reference.encode(TEXTS[3]).ids), 2]
    assert (tokenizer.pad_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.vocab_size) == (1, 2, size - 1, size)
    assert tokenizer.unknown_id is None  # <unk> is in the vocabulary, but bytes know every text


FOLDING = [
    ({}, ["an", "unk", "##nown", "cafe", "[UNK]"]),
    ({"do_lower_case": False}, ["[UNK]", "unk", "##nown", "[UNK]", "[UNK]"]),
    ({"do_lower_case": True, "strip_accents": False}, ["an", "unk", "##nown", "[UNK]", "[UNK]"]),
]


@pytest.mark.parametrize(("told", "tokens"), FOLDING)
def test_bert_vocabulary(told: dict[str, bool], tokens: list[str], tmp_path: Path) -> None:
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "an",
        "unk",
        "##nown",
        "cafe",
        *(f"w{i}" for i in range(99)),
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    if told:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    tokenizer = pretrained_tokenizer(str(tmp_path))
    (ids,) = tokenizer.encode(["An unknown CAFÉ, "])
    assert [pieces[i] for i in ids] == ["[CLS]", *tokens, "[SEP]"]
    assert (tokenizer.pad_id, tokenizer.unknown_id, tokenizer.mask_id, tokenizer.vocab_size) == (0, 1, 4, 108)


def test_a_cased_bert_vocabulary_keeps_case(tmp_path: Path) -> None:
    pieces = [*SPECIALS, "The", "the", *(f"w{i}" for i in range(99))]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    assert pretrained_tokenizer(str(tmp_path)).encode_content(["The the"])[0].tolist() == [5, 6]


def test_damaged_files_are_named(reference: Tokenizer, tmp_path: Path) -> None:
    def refused(match: str, **files: str) -> None:
        folder = tmp_path / f"case{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        as_vocab_and_merges(reference, folder)
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
        with pytest.raises(UserError, match=match) as caught:
            pretrained_tokenizer(str(folder))
        assert "\n" not in str(caught.value)

    refused(r"merges\.txt:2 is not two tokens", merges_txt="t h\nthree parts here\n")
    refused(r"vocab\.json and its merges do not belong together", merges_txt="nowhere else\n")
    refused(r"ends of words \(as CLIP's does\)", merges_txt="t h</w>\n")
    refused(r"vocab\.json is not JSON", vocab_json="{")
    refused(r"vocab\.json is not a vocabulary", vocab_json="[1, 2]")
    refused(r"256 of 256 bytes are not in it", vocab_json='{"a b": 1}')
    refused(r"tokenizer\.json is not a tokenizer", tokenizer_json="{}")
    for name, text, match in (
        ("x.tiktoken", "IQ== 0\nno-base64! 1\n", r"x\.tiktoken:2 is not a token in base64"),
        ("vocab.txt", "just\nwords\n", r"vocab\.txt is no vocabulary of BERT's kind"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(text)
        with pytest.raises(UserError, match=match):
            pretrained_tokenizer(str(folder))


def test_a_folder_without_tokenizer_files_has_no_tokenizer(tmp_path: Path) -> None:
    """transformers makes one of five tokens for it, which turns every text into [UNK]."""
    (tmp_path / "config.json").write_text('{"model_type": "distilbert"}')
    assert own_tokenizer(str(tmp_path), "encoder.name") is None
    with pytest.raises(UserError, match=r"tokenizer\.kind=.*no tokenizer files in it; put there tokenizer"):
        pretrained_tokenizer(str(tmp_path))


def test_a_vocabulary_of_next_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n")
    with pytest.raises(UserError, match=r"tokenizer\.kind=.*a vocabulary of 1 tokens besides special ones"):
        pretrained_tokenizer(str(tmp_path))
