"""Own vocabularies keep the words of every script apart, and fold what they say they fold."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from tokenizers import normalizers, pre_tokenizers

from openjepa.data.tokenizers.choice import TextTokenizer, TokenizerConfig, train_tokenizer
from openjepa.data.tokenizers.training import word_normalizer

PAIRS = {
    "Hindi vowel signs": ("में", "मैं"),
    "Hindi vowel signs, one consonant": ("दे", "दु"),
    "Thai tone marks": ("มา", "ม้า"),
    "Thai vowels": ("กี่", "กู่"),
    "Arabic shadda": ("درس", "درّس"),
    "Hebrew points": ("שָׁם", "שֵׁם"),
    "Russian short i": ("мой", "мои"),
    "Sinhala joiner": ("ක්ය", "ක්\u200dය"),
    "Persian non-joiner": ("میخواهم", "می\u200cخواهم"),
    "German umlaut": ("mochte", "möchte"),
    "French accent": ("pêche", "péché"),
}
LATIN = ("German umlaut", "French accent")


def encoded(text: str, tokenizer: TextTokenizer) -> list[int]:
    return tokenizer.encode_content([text])[0].tolist()


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_different_words_have_different_ids(kind: str, name: str) -> None:
    one, other = PAIRS[name]
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=600), [f"{one} {other} {one} {other}"] * 20)
    assert encoded(one, tokenizer) != encoded(other, tokenizer)
    assert tokenizer.unknown_id not in (*encoded(one, tokenizer), *encoded(other, tokenizer))
    assert tokenizer.decode(encoded(one, tokenizer)) == one


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
@pytest.mark.parametrize("name", PAIRS)
def test_strip_accents_folds_latin_letters_only(name: str, kind: str) -> None:
    words = PAIRS[name]
    config = TokenizerConfig(kind=kind, vocab_size=600, strip_accents=True)
    tokenizer = train_tokenizer(config, [" ".join(words)] * 20)
    folded = [tokenizer.decode(encoded(word, tokenizer)) for word in words]
    if name in LATIN:
        assert folded == ["".join(c for c in unicodedata.normalize("NFD", word) if c.isascii()) for word in words]
    else:
        assert folded == list(words)


def test_composed_and_decomposed_letters_are_the_same_text() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=600), ["möchte café Việt мой"] * 20)
    for word in ("möchte", "café", "Việt", "мой"):
        one, other = unicodedata.normalize("NFC", word), unicodedata.normalize("NFD", word)
        assert one != other
        assert encoded(one, tokenizer) == encoded(other, tokenizer)


def test_case_is_folded_where_asked() -> None:
    for lowercase in (True, False):
        tokenizer = train_tokenizer(TokenizerConfig(vocab_size=600, lowercase=lowercase), ["Öl öl Stadt stadt"] * 20)
        assert (encoded("Öl Stadt", tokenizer) == encoded("öl stadt", tokenizer)) == lowercase


def test_a_word_is_not_cut_at_its_marks() -> None:
    """Hindi's virama joins consonants: a word of the corpus is one token."""
    words = ["भर्ती", "हिन्दी", "पोस्ट", "ন্যায়", "ก็"]
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=600), [" ".join(words)] * 50)
    for word in words:
        assert len(encoded(word, tokenizer)) == 1


def test_long_runs_of_a_script_without_spaces_are_read() -> None:
    """WordPiece gives one [UNK] for a "word" of over 100 characters; in Thai that is a sentence."""
    thai = "ภาษาไทยเป็นภาษาที่ไม่เว้นวรรคระหว่างคำ" * 8
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=600), [thai] * 5)
    ids = encoded(thai, tokenizer)
    assert tokenizer.unknown_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == thai


def test_ascii_is_read_as_bert_reads_it() -> None:
    """Nothing changed for English: the same words, whatever control characters stand between them."""
    bert, words = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    ours = word_normalizer(TokenizerConfig())
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = "".join(map(chr, rng.integers(0, 128, 60)))
        found, known = ([word for word, _ in words.pre_tokenize_str(each.normalize_str(text))] for each in (ours, bert))
        assert found == known
