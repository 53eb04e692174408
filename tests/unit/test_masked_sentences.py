"""Batches of hidden sentences: whole sentences are hidden, everything is found again, and sentences do not mix."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.errors import ConfigError
from openjepa.core.experiment import Experiment, Sample
from openjepa.core.seeding import generator_for
from openjepa.data.files.readers import Counts
from openjepa.data.loading.loader import eval_batches, train_batches
from openjepa.data.text.corpus import TokenRow
from openjepa.data.text.masked import MaskedText, Segments
from openjepa.data.text.masked_sentences import PAD_SENTENCES, PAD_TO, MaskedSentencesCollator
from openjepa.data.text.rows import SentenceRows
from openjepa.data.text.sentences import SentencesConfig
from openjepa.data.text.sources import DataConfig, Document
from openjepa.data.text.transforms import ViewsConfig
from openjepa.data.tokenizers.choice import TextTokenizer, TokenizerConfig, train_tokenizer
from openjepa.experiments.text import train_and_eval
from openjepa.masking.sentences import SentenceMasker
from openjepa.models.transformer import TextEncoder, gather_positions, segment_mean

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


def batch_of(rows: SentenceRows, strategy: str = "random", ratio: float = 0.5) -> MaskedText:
    found = [row for document in made(rows, *TEXTS)[0] for row in document]
    collate = MaskedSentencesCollator(rows, SentenceMasker(strategy, ratio))  # ty: ignore[invalid-argument-type]
    return collate([Sample(TokenRow(r, rows.special(r), i), generator_for(0, "m", i), i) for i, r in enumerate(found)])


@pytest.mark.parametrize(("strategy", "ratio"), product(["random", "block", "next"], [0.01, 0.3, 0.5, 0.99]))
def test_masks_hide_the_asked_share_and_never_all(strategy: str, ratio: float) -> None:
    mask = SentenceMasker(strategy, ratio)  # ty: ignore[invalid-argument-type]
    for count in range(2, 12):
        hidden = mask(count, generator_for(0, "mask", count))
        assert hidden.shape == (count,)
        assert int(hidden.sum()) == min(max(1, round(ratio * count)), count - 1)
        positions = hidden.nonzero().squeeze(1)
        if strategy != "random":
            assert torch.equal(positions, torch.arange(int(positions[0]), int(positions[-1]) + 1))
        if strategy == "next":
            assert int(positions[-1]) == count - 1


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
    " ".join(f"In {position} sentence {n} is {'very ' * (n % 3)}short." for n in range(11))
    for position in ("Rome", "Oslo")
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


def long_batch(tokenizer: TextTokenizer, max_len: int = 82) -> MaskedText:
    """A short document between two that go on in a second row."""
    rows = SentenceRows(tokenizer, OF_THREE, max_len)
    found = [row for document in made(rows, LONG[0], TEXTS[2], LONG[1])[0] for row in document]
    collate = MaskedSentencesCollator(rows, SentenceMasker())
    return collate(
        [Sample(TokenRow(r, rows.special(r), i), generator_for(0, "m", i), 9 + i) for i, r in enumerate(found)]
    )


def numbers_of(batch: MaskedText, part: Segments) -> list[list[int]]:
    """Of each document, the numbers in it of these sentences."""
    return [batch.position[row[keep]].tolist() for row, keep in zip(part.number, part.valid, strict=True)]


def test_passages_know_their_document_and_their_position_in_it(tokenizer: TextTokenizer) -> None:
    batch = long_batch(tokenizer)
    row_document = [0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 4]
    assert batch.keys.tolist() == [9 + i for i in row_document]
    ends = [row == tokenizer.sep_id for row in batch.ids]
    counts = [int(end.sum()) for end in ends]  # sentences of each row
    assert batch.row.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
    assert batch.document.tolist() == [row_document[row] for row in batch.row]
    sizes = [sum(count for count, own in zip(counts, row_document, strict=True) if own == n) for n in range(5)]
    assert batch.position.tolist() == [n for size in sizes for n in range(size)]  # goes on in the document's next row
    hidden, visible = numbers_of(batch, batch.hidden_by_document), numbers_of(batch, batch.visible_by_document)
    for number, size in enumerate(sizes):
        rows = [row for row, own in enumerate(row_document) if own == number]
        firsts = [sum(counts[row] for row in rows[:i]) for i in range(len(rows))]
        wanted = [
            first + n
            for row, first in zip(rows, firsts, strict=True)
            for n, own in enumerate(np.split(batch.hidden[row].numpy(), np.flatnonzero(ends[row]) + 1)[:-1])
            if own.all()
        ]
        assert hidden[number] == wanted
        assert sorted(hidden[number] + visible[number]) == list(range(size))
    asked = batch.hidden_by_document
    assert torch.equal(asked.number[asked.valid], batch.hidden_segments)  # row by row, as targets come


@settings(deadline=None, max_examples=60)
@given(
    documents=st.lists(st.lists(st.integers(5, 39), min_size=2, max_size=14), min_size=1, max_size=4),
    passages=st.integers(1, 3),
)
def test_sentences_are_numbered_through_rows_and_documents(documents: list[list[int]], passages: int) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="bytes"), ())
    rows = SentenceRows(tokenizer, SentencesConfig(passages=passages, min_chars=1), max_len=82)
    texts = [" ".join("A" + "b" * (length - 2) + "." for length in lengths) for lengths in documents]
    found = [row for document in made(rows, *texts)[0] for row in document]
    assume(found)
    collate = MaskedSentencesCollator(rows, SentenceMasker())
    batch = collate([Sample(TokenRow(r, rows.special(r), i), generator_for(0, "m", i), i) for i, r in enumerate(found)])
    sentences = [np.split(row, np.flatnonzero(row == tokenizer.sep_id) + 1)[:-1] for row in found]  # of each document
    assert [
        batch.ids[row][batch.segment[row] == segment].tolist() for segment, row in enumerate(batch.row.tolist())
    ] == [sentence.tolist() for own in sentences for sentence in own]
    assert batch.document.tolist() == [n for n, own in enumerate(sentences) for _ in own]
    assert batch.position.tolist() == [n for own in sentences for n in range(len(own))]
    assert batch.keys[batch.row].tolist() == batch.document.tolist()
    assert torch.equal(batch.segment >= 0, batch.valid)  # every token has its sentence, a prefix too


def test_with_one_passage_every_row_is_a_document(rows: SentenceRows) -> None:
    batch = batch_of(rows)
    assert torch.equal(batch.document, batch.row)
    assert batch.row.unique().tolist() == list(range(batch.size))
    assert batch.position.tolist() == [batch.row.tolist()[:n].count(row) for n, row in enumerate(batch.row.tolist())]
    assert len(batch.hidden_by_document.valid) == len(batch.visible_by_document.valid) == batch.size


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
    assert isinstance(batch, MaskedText)
    found: dict[int, list[str]] = {}
    for segment, row in enumerate(batch.row.tolist()):
        at = batch.segment[row] == segment
        text = tokenizer.decode(batch.ids[row][at].tolist())
        hidden = bool(batch.hidden[row][at].all())
        found.setdefault(int(batch.keys[row]), []).append(f"[{text}]" if hidden else text)
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
    hidden = set(batch.hidden_segments.tolist())
    for row in range(batch.size):
        own = batch.segment[row]
        sentences = set(own[batch.valid[row]].tolist())
        for segment in sentences:
            assert bool(batch.hidden[row, own == segment].all()) == (segment in hidden)
            assert bool(batch.hidden[row, own == segment].any()) == (segment in hidden)
        assert 0 < len(sentences & hidden) < len(sentences)
        parts = [part.at[row, part.valid[row]].tolist() for part in (batch.visible_tokens, batch.hidden_tokens)]
        assert sorted([*parts[0], *parts[1]]) == batch.valid[row].nonzero().squeeze(1).tolist()


def test_pooling_is_the_mean_of_each_sentence(rows: SentenceRows) -> None:
    batch = batch_of(rows)
    states = torch.randn(*batch.ids.shape, 5, generator=generator_for(0, "states"))  # [B, T, D]
    pooled = segment_mean(states, batch.all_tokens.segment, batch.all_tokens.positions, len(batch.row))  # [N, D]
    for segment, row in enumerate(batch.row.tolist()):
        assert torch.allclose(pooled[segment], states[row, batch.segment[row] == segment].mean(0), atol=1e-6)


def test_sentences_read_alone_equal_separate_passes(rows: SentenceRows) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(vocab=300, dim=16, depth=2, heads=2, max_len=256).eval()
    batch = batch_of(rows)
    hidden = batch.hidden_tokens
    with torch.no_grad():
        together = encoder(gather_positions(batch.ids, hidden.at), hidden.segment, hidden.positions)  # [B, H, D]
        for segment in batch.hidden_segments.tolist():
            row = int(batch.row[segment])
            own = batch.ids[row, batch.segment[row] == segment][None]
            alone = encoder(own, torch.ones_like(own, dtype=torch.bool))[0]
            assert torch.allclose(together[hidden.segment == segment], alone, atol=1e-5)


def test_visible_and_hidden_sentences_are_all_sentences(rows: SentenceRows) -> None:
    batch = batch_of(rows, ratio=0.4)
    visible, hidden = (
        part.number[part.valid].tolist() for part in (batch.visible_by_document, batch.hidden_by_document)
    )
    assert sorted([*visible, *hidden]) == list(range(len(batch.row)))
    for row, (seen, asked) in enumerate(
        zip(numbers_of(batch, batch.visible_by_document), numbers_of(batch, batch.hidden_by_document), strict=True)
    ):
        assert sorted([*seen, *asked]) == list(range(int((batch.row == row).sum())))


@pytest.mark.parametrize("hidden", [True, False])
def test_a_part_holds_the_tokens_that_all_tokens_have_of_its_sentences(rows: SentenceRows, hidden: bool) -> None:
    """So sentences may be pooled from their part alone, or from the pass over all of them."""
    batch = batch_of(rows)
    part, everything = batch.hidden_tokens if hidden else batch.visible_tokens, batch.all_tokens
    listed = batch.hidden_by_document if hidden else batch.visible_by_document
    numbers = listed.number[listed.valid]  # [S]
    for segment in numbers.tolist():
        mine, all_of_them = part.segment == segment, everything.segment == segment
        assert torch.equal(part.at[mine], everything.at[all_of_them])
        assert torch.equal(part.positions[mine], everything.positions[all_of_them])
    assert part.segment[part.valid].unique().tolist() == numbers.tolist()
    states = torch.randn(*batch.ids.shape, 5, generator=generator_for(0, "states"))  # [B, T, D]
    of_part = segment_mean(gather_positions(states, part.at), part.segment, part.positions, len(batch.row))  # [N, D]
    of_all = segment_mean(states, everything.segment, everything.positions, len(batch.row))
    assert torch.equal(of_part[numbers], of_all[numbers])
    others = torch.ones(len(batch.row), dtype=torch.bool)
    others[numbers] = False
    assert not of_part[others].any()


def test_the_nearest_visible_sentence_is_visible_and_nearest(rows: SentenceRows) -> None:
    batch = batch_of(rows, ratio=0.6)
    hidden = batch.hidden_segments.tolist()
    for own, found in zip(hidden, batch.nearest_visible_segments().tolist(), strict=True):
        visible = [n for n in range(len(batch.row)) if batch.row[n] == batch.row[own] and n not in hidden]
        assert found == min(visible, key=lambda n, own=own: (abs(n - own), n))


def test_texts_to_embed_hide_nothing(rows: SentenceRows) -> None:
    inputs = MaskedSentencesCollator(rows, SentenceMasker()).inputs()
    batch = inputs(["Two here. And there.", "", "no end", "🙂"])
    assert not batch.hidden.any()
    assert batch.hidden_segments.shape == (0,)
    assert batch.hidden_by_document.number.shape == (4, 0)
    assert batch.hidden_tokens.at.shape == (4, 0)
    assert batch.valid.any(1).all()


@pytest.mark.parametrize("ratio", [0.3, 0.5])  # at most 1 hidden and 3 visible sentences a row; 2 and 2
def test_widths_are_rounded_up_but_never_above_the_longest_row(rows: SentenceRows, ratio: float) -> None:
    batch = batch_of(rows, ratio=ratio)
    assert batch.ids.shape[1] % PAD_TO == 0
    longest = max(int(batch.valid.sum(1).max()), 1)
    assert longest <= batch.ids.shape[1] < longest + PAD_TO
    tokens, sentences = (
        [getattr(batch, f"{part}_{kind}").valid for part in ("visible", "hidden")] for kind in ("tokens", "by_document")
    )
    for multiple, parts in ((PAD_TO, tokens), (PAD_SENTENCES, sentences)):
        for valid in parts:
            assert valid.shape[1] % multiple == 0
            assert valid.shape[1] < int(valid.sum(1).max()) + multiple
    tight = MaskedSentencesCollator(replace(rows, max_len=13), SentenceMasker()).whole([np.arange(5, 18)])
    assert tight.ids.shape[1] == 13
