"""Index tensors of masked batches: each is compared with a slow loop that says the same in plain words."""

from __future__ import annotations

from itertools import takewhile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from openjepa.core.experiment import Sample
from openjepa.core.seeding import generator_for
from openjepa.data.text.corpus import TokenRow
from openjepa.data.text.masked import MaskedText, MaskedTextCollator, positions_of, positions_within
from openjepa.data.tokenizers.choice import train_tokenizer
from openjepa.data.tokenizers.text_tokenizer import TextTokenizer, TokenizerConfig
from openjepa.models.transformer import gather_positions

MASKS = st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(lambda shape: arrays(np.bool_, shape))
LENGTHS = [14, 3, 9, 14, 5]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(TokenizerConfig(kind="bytes"), ())


class Halves:
    """Hides every second of the maskable positions, and the first one."""

    def __call__(self, valid: Tensor, generator: torch.Generator) -> Tensor:
        hidden = torch.zeros_like(valid)
        hidden[valid.nonzero().squeeze(1)[::2]] = True
        return hidden


def any_masker(valid: Tensor, generator: torch.Generator) -> Tensor:
    """At least one and not all of the positions, at random."""
    positions = valid.nonzero().squeeze(1)
    count = int(torch.randint(1, len(positions), (1,), generator=generator))
    hidden = torch.zeros_like(valid)
    hidden[positions[torch.randperm(len(positions), generator=generator)[:count]]] = True
    return hidden


def all_maskable(valid: Tensor, generator: torch.Generator) -> Tensor:
    return valid


def rows_with(mask: np.ndarray) -> list[Sample]:
    """Rows of which tokens can be hidden where `mask` [B, T]."""
    ids = np.random.default_rng(0).integers(5, 200, mask.shape).astype(np.int32)
    return [
        Sample(TokenRow(row, ~maskable, i), generator_for(0, "mask", i), i)
        for i, (row, maskable) in enumerate(zip(ids, mask, strict=True))
    ]


def rows(wrapped: bool = True, seed: int = 0) -> list[Sample]:
    made = []
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(5, 200, (length,), generator=generator_for(seed, "ids", i)).numpy().astype(np.int32)
        special = np.zeros(length, dtype=bool)
        special[0] = wrapped
        made.append(Sample(TokenRow(ids, special, i), generator_for(seed, "mask", i), 100 + i))
    return made


@pytest.fixture(params=range(3))
def batch(request: pytest.FixtureRequest, tokenizer: TextTokenizer) -> MaskedText:
    return MaskedTextCollator(tokenizer, any_masker)(rows(seed=request.param))


def test_rows_are_padded_and_traced(batch: MaskedText, tokenizer: TextTokenizer) -> None:
    assert batch.keys.tolist() == [100, 101, 102, 103, 104]
    assert batch.ids.shape == (5, 14)
    assert batch.valid.sum(1).tolist() == LENGTHS
    assert (batch.ids[~batch.valid] == tokenizer.pad_id).all()
    assert batch.tokens == sum(LENGTHS)
    assert batch.size == 5


def test_special_tokens_and_padding_are_never_hidden(batch: MaskedText) -> None:
    assert not batch.hidden[:, 0].any()
    assert not (batch.hidden & ~batch.valid).any()


def test_visible_and_hidden_cover_every_real_token_once(batch: MaskedText) -> None:
    for i, length in enumerate(LENGTHS):
        visible, hidden = (part.at[i][part.valid[i]].tolist() for part in (batch.visible_tokens, batch.hidden_tokens))
        assert hidden == batch.hidden[i].nonzero().squeeze(1).tolist()
        assert visible == sorted(visible)
        assert sorted(visible + hidden) == list(range(length))


def test_segments_are_the_hidden_spans_in_the_order_of_the_hidden_tokens(batch: MaskedText) -> None:
    """What lets a latent per token become one per span without a search."""
    hidden = batch.hidden_tokens
    assert torch.equal(hidden.segment[hidden.valid], batch.segment[batch.hidden])
    assert torch.equal(gather_positions(batch.ids, hidden.at)[hidden.valid], batch.ids[batch.hidden])
    assert torch.equal(batch.segment >= 0, batch.hidden)
    assert batch.hidden_segments.tolist() == list(range(len(batch.row)))
    assert (batch.visible_tokens.segment == -1).all()
    assert not batch.visible_by_document.valid.any()


@settings(deadline=None)
@given(MASKS)
def test_every_run_of_hidden_tokens_of_every_row_is_a_segment(tokenizer: TextTokenizer, mask: np.ndarray) -> None:
    expected: list[list[tuple[int, int]]] = []  # row and position of the tokens of each run
    for row, values in enumerate(mask):
        for at, value in enumerate(values):
            if value and at and values[at - 1]:
                expected[-1].append((row, at))
            elif value:
                expected.append([(row, at)])
    batch = MaskedTextCollator(tokenizer, all_maskable)(rows_with(mask))
    found = [(batch.segment == n).nonzero().tolist() for n in range(len(batch.row))]
    assert [[(row, at) for row, at in run] for run in found] == expected
    assert [*zip(batch.row.tolist(), batch.start.tolist(), strict=True)] == [run[0] for run in expected]
    rows_of_runs = [run[0][0] for run in expected]
    assert batch.document.tolist() == rows_of_runs  # a row is a document
    assert batch.position.tolist() == [rows_of_runs[:n].count(row) for n, row in enumerate(rows_of_runs)]


@settings(deadline=None)
@given(MASKS, st.integers(1, 8))
def test_positions_of_lists_true_entries_in_order(mask: np.ndarray, multiple: int) -> None:
    at, valid = positions_of(torch.from_numpy(mask), multiple)
    found = [row[keep].tolist() for row, keep in zip(at, valid, strict=True)]
    assert found == [np.flatnonzero(row).tolist() for row in mask]
    most, width = int(mask.sum(1).max()), mask.shape[1]
    assert at.shape == valid.shape == (len(mask), min(width, -(-most // multiple) * multiple))
    assert ((at >= 0) & (at < width)).all()  # padding can be gathered with, too
    assert torch.equal(valid, valid.sort(dim=1, descending=True).values)  # real ones first


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-1, 3), min_size=9, max_size=9), min_size=1, max_size=4))
def test_positions_within_count_from_the_start_of_each_run(segments: list[list[int]]) -> None:
    expected = [[len(list(takewhile(lambda n, own=row[at]: n == own, row[:at][::-1]))) for at in range(9)]
                for row in segments]  # fmt: skip
    assert positions_within(torch.tensor(segments)).tolist() == expected


def test_the_nearest_visible_token_is_the_nearest(batch: MaskedText) -> None:
    nearest = batch.nearest_visible_tokens()
    for i in range(batch.size):
        visible = batch.visible_tokens.at[i][batch.visible_tokens.valid[i]].tolist()
        for hidden, found in zip(batch.hidden_tokens.at[i], nearest[i], strict=True):
            assert int(found) in visible
            assert abs(int(hidden) - int(found)) == min(abs(int(hidden) - at) for at in visible)


def test_masks_come_from_each_rows_own_generator(tokenizer: TextTokenizer) -> None:
    """So a row's mask does not depend on its neighbours, nor on its position in the batch."""
    collate = MaskedTextCollator(tokenizer, any_masker)
    together, alone = collate(rows()), collate([rows()[2]])
    assert torch.equal(together.hidden[2, : LENGTHS[2]], alone.hidden[0])
    backwards = collate(rows()[::-1])
    assert torch.equal(backwards.hidden.flip(0), together.hidden)


def test_texts_to_embed_hide_nothing(tokenizer: TextTokenizer) -> None:
    texts = ["one text", "", "a text that is far too long to fit"]
    batch = MaskedTextCollator(tokenizer, Halves()).inputs(max_len=12)(texts)
    assert not batch.hidden.any()
    assert batch.hidden_tokens.at.shape == (3, 0)
    assert len(batch.row) == len(batch.hidden_segments) == 0
    assert torch.equal(batch.visible_tokens.valid, batch.valid)
    assert (batch.valid.sum(1) >= 1).all()  # an empty text still has a vector
    assert batch.ids.shape[1] == 12
    assert batch.nearest_visible_tokens().shape == (3, 0)
    assert tokenizer.decode(batch.ids[0][batch.valid[0]].tolist()) == "one text"


def test_only_a_wrapped_text_has_specials(tokenizer: TextTokenizer) -> None:
    batch = MaskedTextCollator(tokenizer, Halves())(rows(wrapped=False))
    assert batch.hidden[:, 0].all()
