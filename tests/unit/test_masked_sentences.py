"""Batches of hidden sentences: whole sentences are hidden, everything is found again, and sentences do not mix."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.errors import ConfigError
from openjepa.core.experiment import Experiment, Row
from openjepa.core.seeding import generator_for
from openjepa.data.corpus import TokenRow
from openjepa.data.loader import eval_batches, train_batches
from openjepa.data.masked_sentences import PAD_TO, MaskedSentences, MaskedSentencesCollator
from openjepa.data.readers import Counts
from openjepa.data.rows import SentenceRows
from openjepa.data.sentences import SentencesConfig
from openjepa.data.sources import DataConfig, Document
from openjepa.data.text import train_and_eval
from openjepa.data.tokenizer import TextTokenizer, TokenizerConfig, train_tokenizer
from openjepa.data.transforms import ViewsConfig
from openjepa.masking.sentences import SentenceMasker
from openjepa.models.transformer import TextEncoder

TEXTS = (
    "A cat sat down. It was warm outside. The dog slept.",
    "One thing led to another. Then it rained for an hour and the whole street was wet. Nobody minded. We went home.",
    "Short one. Another short one.",
)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(TokenizerConfig(kind="bytes"), ())


@pytest.fixture(scope="module")
def rows(tokenizer: TextTokenizer) -> SentenceRows:
    return SentenceRows(tokenizer, SentencesConfig(), max_len=256)


def made(rows: SentenceRows, *texts: str) -> tuple[list[list[np.ndarray]], Counts]:
    counts = Counts()
    return rows.rows([Document(text, None, f"d{n}", n) for n, text in enumerate(texts)], counts), counts


def batch_of(rows: SentenceRows, strategy: str = "random", ratio: float = 0.5) -> MaskedSentences:
    found = [row for document in made(rows, *TEXTS)[0] for row in document]
    collate = MaskedSentencesCollator(rows, SentenceMasker(strategy, ratio))  # ty: ignore[invalid-argument-type]
    return collate([Row(TokenRow(r, rows.special(r), i), generator_for(0, "m", i), i) for i, r in enumerate(found)])


@pytest.mark.parametrize(("strategy", "ratio"), product(["random", "block", "next"], [0.01, 0.3, 0.5, 0.99]))
def test_masks_hide_the_asked_share_and_never_all(strategy: str, ratio: float) -> None:
    mask = SentenceMasker(strategy, ratio)  # ty: ignore[invalid-argument-type]
    for count in range(2, 12):
        hidden = mask(count, generator_for(0, "mask", count))
        assert hidden.shape == (count,)
        assert int(hidden.sum()) == min(max(1, round(ratio * count)), count - 1)
        places = hidden.nonzero().squeeze(1)
        if strategy != "random":
            assert torch.equal(places, torch.arange(int(places[0]), int(places[-1]) + 1))
        if strategy == "next":
            assert int(places[-1]) == count - 1


@pytest.mark.parametrize("strategy", ["random", "block"])
def test_every_sentence_can_be_hidden(strategy: str) -> None:
    mask = SentenceMasker(strategy, 0.4)  # ty: ignore[invalid-argument-type]
    hidden = torch.stack([mask(5, generator_for(0, "mask", n)) for n in range(300)])
    assert bool((hidden.float().mean(0) > 0.15).all())


def test_wrong_masks_are_refused() -> None:
    with pytest.raises(ConfigError, match="ratio"):
        SentenceMasker("random", 1.0)
    with pytest.raises(ConfigError, match="random, block or next"):
        SentenceMasker("all", 0.5)  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="at least 2"):
        SentenceMasker()(1, generator_for(0, "mask"))


def test_rows_hold_whole_sentences_each_ended_by_a_separator(rows: SentenceRows, tokenizer: TextTokenizer) -> None:
    found, counts = made(rows, *TEXTS)
    assert [len(document) for document in found] == [1, 1, 1]
    assert not counts
    for text, (row,) in zip(TEXTS, found, strict=True):
        parts = np.split(row, np.flatnonzero(row == tokenizer.sep_id) + 1)
        assert [tokenizer.decode(part) for part in parts[:-1]] == [s.lower() for s in rows.split(text)]
        assert not len(parts[-1])
        assert rows.special(row).sum() == len(parts) - 1


def test_long_documents_become_rows_of_at_least_two_sentences(tokenizer: TextTokenizer) -> None:
    rows = SentenceRows(tokenizer, SentencesConfig(), max_len=64)
    text = " ".join(f"Sentence number {n} is here." for n in range(9)) + " " + "x" * 500 + "."
    (document,), _ = made(rows, text)
    assert len(document) > 3
    for row in document:
        assert len(row) <= 64
        assert (row == tokenizer.sep_id).sum() >= 2


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(2, 40), min_size=2, max_size=30))
def test_packing_keeps_every_sentence_but_the_last_of_pairs(lengths: list[int]) -> None:
    rows = SentenceRows(train_tokenizer(TokenizerConfig(kind="bytes"), ()), SentencesConfig(), max_len=82)
    sentences = [np.full(length, 7 + n, dtype=np.int32) for n, length in enumerate(lengths)]
    packed = rows.pack(sentences)
    kept = [int(sentence[0]) for row in packed for sentence in row]
    assert kept == sorted(kept)
    assert all(len(row) >= 2 and sum(len(s) + 1 for s in row) <= 82 for row in packed)
    if len(kept) < len(lengths):
        assert kept == list(range(7, 6 + len(lengths)))  # the last one is missing
        assert all(len(row) == 2 for row in packed)


def test_a_last_sentence_takes_a_neighbour_from_afar(tokenizer: TextTokenizer) -> None:
    rows = SentenceRows(tokenizer, SentencesConfig(), max_len=82)
    lengths = {"a": 10, "b": 10, "c": 30, "d": 40, "e": 40, "f": 40, "g": 40, "h": 40}
    sentences = [np.full(length, ord(name), dtype=np.int32) for name, length in lengths.items()]

    def named(packed: list[list[np.ndarray]]) -> list[str]:
        return ["".join(chr(sentence[0]) for sentence in row) for row in packed]

    assert named(rows.pack(sentences[:7])) == ["abc", "de", "fg"]
    assert named(rows.pack(sentences)) == ["ab", "cd", "ef", "gh"]
    assert named(rows.pack(sentences[3:])) == ["de", "fg"]
    assert rows.pack(sentences[:1]) == rows.pack([]) == []


def test_a_last_sentence_without_room_is_counted(tokenizer: TextTokenizer) -> None:
    rows = SentenceRows(tokenizer, SentencesConfig(), max_len=82)
    text = " ".join(f"{name} is a name of thirty-odd letters." for name in ("Ada", "Bob", "Cyd"))
    (document,), counts = made(rows, text)
    assert len(document) == 1
    assert counts == {"last sentence without room beside another": 1}


LONG = tuple(
    " ".join(f"In {place} sentence {n} is {'very ' * (n % 3)}short." for n in range(11)) for place in ("Rome", "Oslo")
)
OF_THREE = SentencesConfig(passages=3)


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(5, 39), min_size=2, max_size=40), passages=st.integers(1, 4))
def test_a_row_of_several_passages_is_cut_into_what_it_was_packed_from(lengths: list[int], passages: int) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="bytes"), ())
    rows = SentenceRows(tokenizer, SentencesConfig(passages=passages, min_chars=1), max_len=82)
    text = " ".join("A" + "b" * (length - 2) + "." for length in lengths)
    (document,), _ = made(rows, text)
    (single,), _ = made(replace(rows, sentences=SentencesConfig(min_chars=1)), text)
    assert np.array_equal(np.concatenate(document), np.concatenate(single))
    for row in document:
        cut = rows.passages(row)
        assert len(cut) <= passages
        assert np.array_equal(np.concatenate(cut), row)
        for passage in cut:
            assert len(passage) <= 82
            assert (passage == tokenizer.sep_id).sum() >= 2
            assert passage[-1] == tokenizer.sep_id


def long_batch(tokenizer: TextTokenizer, max_len: int = 82) -> MaskedSentences:
    """A short document between two that go on in a second row."""
    rows = SentenceRows(tokenizer, OF_THREE, max_len)
    found = [row for document in made(rows, LONG[0], TEXTS[2], LONG[1])[0] for row in document]
    collate = MaskedSentencesCollator(rows, SentenceMasker())
    return collate([Row(TokenRow(r, rows.special(r), i), generator_for(0, "m", i), 9 + i) for i, r in enumerate(found)])


def test_passages_know_their_document_and_their_place_in_it(tokenizer: TextTokenizer) -> None:
    batch = long_batch(tokenizer)
    assert batch.document.tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 4]
    assert batch.keys.tolist() == [9 + i for i in batch.document.tolist()]
    for number in range(5):
        rows = (batch.document == number).nonzero()[:, 0]
        sizes = [int(batch.sentence[row].max()) + 1 for row in rows]
        assert batch.before[rows].tolist() == [sum(sizes[:i]) for i in range(len(sizes))]
        hidden, visible = (
            [int(batch.before[row]) + int(n) for row in rows for n in numbers[row][valid[row]]]
            for numbers, valid in ((batch.asked, batch.asked_valid), (batch.seen, batch.seen_valid))
        )
        assert batch.asked_places[number][batch.all_asked_valid[number]].tolist() == hidden
        assert batch.seen_places[number][batch.all_seen_valid[number]].tolist() == visible
        assert sorted(hidden + visible) == list(range(sum(sizes)))
    asked = batch.asked.flatten()[batch.all_asked][batch.all_asked_valid]
    assert torch.equal(asked, batch.asked[batch.asked_valid])  # row by row, as targets come
    assert batch.document_of_all.bincount().tolist() == [
        int((batch.all_asked_valid.sum(1) + batch.all_seen_valid.sum(1))[number]) for number in range(5)
    ]


def test_with_one_passage_every_row_is_a_document(rows: SentenceRows) -> None:
    batch = batch_of(rows)
    assert batch.document.tolist() == list(range(batch.size))
    assert not batch.before.any()
    assert torch.equal(batch.all_asked_valid, batch.asked_valid)
    assert torch.equal(batch.asked_places[batch.asked_valid], batch.asked[batch.asked_valid])
    assert torch.equal(batch.seen_places[batch.seen_valid], batch.seen[batch.seen_valid])


def test_views_change_rows_in_training_only(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    corpus = [" ".join(f"This is sentence {n} of text {i}." for n in range(5)) for i in range(60)]
    (tmp_path / "a.txt").write_text("\n".join(corpus))
    plain = SentenceRows(tokenizer, SentencesConfig(), max_len=256)
    views = ViewsConfig(delete=0.3, shuffle=True, truncate=3)
    changed = SentenceRows(tokenizer, SentencesConfig(views=views), max_len=256)
    assert changed.fingerprint == plain.fingerprint  # the cache holds whole rows

    def experiment(maker: SentenceRows, workers: int = 0, streaming: bool = False) -> Experiment:
        data = DataConfig(source=str(tmp_path / "a.txt"), eval_fraction=0.3, streaming=streaming)
        collate = MaskedSentencesCollator(maker, SentenceMasker("random", 0.5))
        method: Any = None
        settings = TrainConfig(steps=4, batch_size=100, workers=workers)  # each step an epoch
        rows = train_and_eval(data, maker)
        return Experiment(method, *rows, collate, Embedding(collate.inputs()), settings)

    def epochs(exp: Experiment) -> list[dict[int, list[str]]]:
        """Of each epoch: row -> its sentences in training, the hidden ones in brackets."""
        return [sentences_of(batch, tokenizer) for batch in train_batches(exp, 0)]

    whole, *_ = epochs(experiment(plain))
    seen = epochs(experiment(changed))
    for epoch in seen:
        assert epoch.keys() == whole.keys()
        for number, row in epoch.items():
            texts = [sentence.strip("[]") for sentence in row]
            assert len(set(texts) & {sentence.strip("[]") for sentence in whole[number]}) == len(texts) == 3
            assert 1 <= sum(sentence.startswith("[") for sentence in row) <= 2
    assert sum(seen[0][number] != seen[1][number] for number in whole) > len(whole) / 2  # drawn anew
    assert seen == epochs(experiment(changed, workers=2)) == epochs(experiment(changed, streaming=True))
    held_out, untouched = (list(eval_batches(experiment(maker))) for maker in (changed, plain))
    assert [sentences_of(b, tokenizer) for b in held_out] == [sentences_of(b, tokenizer) for b in untouched]


def sentences_of(batch: Batch, tokenizer: TextTokenizer) -> dict[int, list[str]]:
    assert isinstance(batch, MaskedSentences)
    found: dict[int, list[str]] = {}
    for row, key in enumerate(batch.keys.tolist()):
        for number in range(int(batch.sentence[row].max()) + 1):
            at = batch.sentence[row] == number
            text = tokenizer.decode(batch.ids[row][at].tolist())
            found.setdefault(key, []).append(f"[{text}]" if bool(batch.hidden[row][at].all()) else text)
    return found


def test_documents_of_one_sentence_are_counted(rows: SentenceRows) -> None:
    found, counts = made(rows, "Only one sentence here.", TEXTS[0])
    assert [len(document) for document in found] == [0, 1]
    assert counts == {"document of one sentence": 1}


def test_too_little_room_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ConfigError, match="max_len=8"):
        SentenceRows(tokenizer, SentencesConfig(), max_len=8)


def test_other_sentence_settings_are_another_corpus(tokenizer: TextTokenizer, rows: SentenceRows) -> None:
    same = SentenceRows(tokenizer, SentencesConfig(), max_len=256)
    other = SentenceRows(tokenizer, SentencesConfig(min_chars=20), max_len=256)
    assert rows.fingerprint == same.fingerprint
    assert rows.fingerprint != other.fingerprint


@pytest.mark.parametrize("strategy", ["random", "block", "next"])
def test_a_hidden_sentence_is_hidden_whole(rows: SentenceRows, strategy: str) -> None:
    batch = batch_of(rows, strategy)
    assert not (batch.hidden & ~batch.valid).any()
    for i in range(batch.size):
        asked = set(batch.asked[i, batch.asked_valid[i]].tolist())
        numbers = batch.sentence[i]
        for number in range(int(numbers.max()) + 1):
            assert bool(batch.hidden[i, numbers == number].all()) == (number in asked)
            assert bool(batch.hidden[i, numbers == number].any()) == (number in asked)
        assert 0 < len(asked) < int(numbers.max()) + 1
        seen = batch.context_at[i, batch.context_valid[i]]
        hidden = batch.hidden_at[i, batch.hidden_valid[i]]
        assert sorted([*seen.tolist(), *hidden.tolist()]) == batch.valid[i].nonzero().squeeze(1).tolist()


def test_pooling_is_the_mean_of_each_sentence(rows: SentenceRows) -> None:
    batch = batch_of(rows)
    states = torch.randn(*batch.ids.shape, 5, generator=generator_for(0, "states"))  # [B, T, D]
    numbers, real = batch.every_sentence
    part = batch.part(numbers, real)
    pooled = part.weights @ states.gather(1, part.at[..., None].expand(-1, -1, 5))  # [B, N, D]
    for i, n in real.nonzero().tolist():
        assert torch.allclose(pooled[i, n], states[i, batch.sentence[i] == n].mean(0), atol=1e-6)


def test_sentences_read_alone_equal_separate_passes(rows: SentenceRows) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(vocab=300, dim=16, depth=2, heads=2, max_len=256).eval()
    batch = batch_of(rows)
    with torch.no_grad():
        ids = batch.ids.gather(1, batch.hidden_at)
        together = encoder(ids, *batch.hidden_part.alone)  # [B, H, D]
        for i in range(batch.size):
            for number in batch.asked[i, batch.asked_valid[i]].tolist():
                own = batch.ids[i, batch.sentence[i] == number][None]
                alone = encoder(own, torch.ones_like(own, dtype=torch.bool))[0]
                mine = (batch.sentence[i].gather(0, batch.hidden_at[i]) == number) & batch.hidden_valid[i]
                assert torch.allclose(together[i, mine], alone, atol=1e-5)


def test_visible_and_hidden_sentences_are_all_sentences(rows: SentenceRows) -> None:
    batch = batch_of(rows, ratio=0.4)
    for i in range(batch.size):
        seen = batch.seen[i, batch.seen_valid[i]].tolist()
        asked = batch.asked[i, batch.asked_valid[i]].tolist()
        assert sorted([*seen, *asked]) == list(range(int(batch.sentence[i].max()) + 1))


@pytest.mark.parametrize("hidden", [True, False])
def test_a_part_asked_for_by_number_is_the_part_made_in_the_workers(rows: SentenceRows, hidden: bool) -> None:
    batch = batch_of(rows)
    made = batch.hidden_part if hidden else batch.visible_part
    asked = batch.part(made.number, made.real)
    assert torch.equal(asked.of, made.of)
    assert torch.equal(asked.weights, made.weights)
    assert torch.equal(asked.at[asked.valid], made.at[made.valid])


def test_nearest_visible_is_visible_and_nearest(rows: SentenceRows) -> None:
    batch = batch_of(rows, ratio=0.6)
    nearest = batch.nearest_visible()
    for i, s in batch.asked_valid.nonzero().tolist():
        asked = set(batch.asked[i, batch.asked_valid[i]].tolist())
        seen = [n for n in range(int(batch.sentence[i].max()) + 1) if n not in asked]
        own = int(batch.asked[i, s])
        assert int(nearest[i, s]) in seen
        assert abs(int(nearest[i, s]) - own) == min(abs(n - own) for n in seen)


def test_texts_to_embed_hide_nothing(rows: SentenceRows) -> None:
    inputs = MaskedSentencesCollator(rows, SentenceMasker()).inputs()
    batch = inputs(["Two here. And there.", "", "no end", "🙂"])
    assert not batch.hidden.any()
    assert batch.asked.shape == (4, 0)
    assert batch.valid.any(1).all()


def test_widths_are_rounded_up_but_never_above_the_longest_row(rows: SentenceRows) -> None:
    batch = batch_of(rows)
    assert batch.ids.shape[1] % PAD_TO == 0
    longest = max(int(batch.valid.sum(1).max()), 1)
    assert longest <= batch.ids.shape[1] < longest + PAD_TO
    for part in (batch.context_valid, batch.hidden_valid):
        assert part.shape[1] % PAD_TO == 0
        assert part.shape[1] < int(part.sum(1).max()) + PAD_TO
    tight = MaskedSentencesCollator(replace(rows, max_len=13), SentenceMasker()).whole([np.arange(5, 18)])
    assert tight.ids.shape[1] == 13
