"""Index tensors of masked batches: each is compared with a slow loop that says the same in plain words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from openjepa.core.experiment import Row
from openjepa.core.seeding import generator_for
from openjepa.data.masked_text import MaskedText, MaskedTextCollator, places_of, spans_of
from openjepa.data.text import TextTokenizer, TokenizerConfig, TokenRow
from openjepa.data.tokenizer import train_tokenizer

MASKS = st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(lambda shape: arrays(np.bool_, shape))
LENGTHS = [14, 3, 9, 14, 5]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(TokenizerConfig(kind="bytes"), ())


class Halves:
    """Hides every second of the maskable places, and the first one."""

    def __call__(self, valid: Tensor, generator: torch.Generator) -> Tensor:
        hidden = torch.zeros_like(valid)
        hidden[valid.nonzero().squeeze(1)[::2]] = True
        return hidden


def any_masker(valid: Tensor, generator: torch.Generator) -> Tensor:
    """At least one and not all of the places, at random."""
    places = valid.nonzero().squeeze(1)
    count = int(torch.randint(1, len(places), (1,), generator=generator))
    hidden = torch.zeros_like(valid)
    hidden[places[torch.randperm(len(places), generator=generator)[:count]]] = True
    return hidden


def rows(wrapped: bool = True, seed: int = 0) -> list[Row]:
    made = []
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(5, 200, (length,), generator=generator_for(seed, "ids", i)).numpy().astype(np.int32)
        special = np.zeros(length, dtype=bool)
        special[0] = wrapped
        made.append(Row(TokenRow(ids, special, i), generator_for(seed, "mask", i), 100 + i))
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


def test_context_and_hidden_cover_every_real_token_once(batch: MaskedText) -> None:
    for i, length in enumerate(LENGTHS):
        seen = batch.context_at[i][batch.context_valid[i]].tolist()
        hidden = batch.hidden_at[i][batch.hidden_valid[i]].tolist()
        assert hidden == batch.hidden[i].nonzero().squeeze(1).tolist()
        assert seen == sorted(seen)
        assert sorted(seen + hidden) == list(range(length))


def test_spans_list_the_hidden_tokens_in_the_order_of_hidden_at(batch: MaskedText) -> None:
    """What lets a latent per token be cut into spans without a search."""
    width = batch.ids.shape[1]
    offsets = torch.arange(batch.size)[:, None] * width
    flat = (batch.hidden_at + offsets)[batch.hidden_valid]
    assert torch.equal(batch.span_at[batch.span_valid], flat)
    assert torch.equal(batch.ids.flatten()[batch.span_at][batch.span_valid], batch.ids[batch.hidden])


@settings(deadline=None)
@given(MASKS)
def test_spans_of_finds_every_run_of_every_row(mask: np.ndarray) -> None:
    expected: list[list[int]] = []
    for row, values in enumerate(mask):
        for place, value in enumerate(values):
            at = row * mask.shape[1] + place
            if value and place and values[place - 1]:
                expected[-1].append(at)
            elif value:
                expected.append([at])
    at, valid = spans_of(torch.from_numpy(mask))
    assert [row[keep].tolist() for row, keep in zip(at, valid, strict=True)] == expected
    assert not expected or valid.shape[1] == max(map(len, expected))  # as narrow as can be
    assert torch.equal(valid, valid.sort(dim=1, descending=True).values)  # real ones first


@settings(deadline=None)
@given(MASKS)
def test_places_of_lists_true_entries_in_order(mask: np.ndarray) -> None:
    at, valid = places_of(torch.from_numpy(mask))
    found = [row[keep].tolist() for row, keep in zip(at, valid, strict=True)]
    assert found == [np.flatnonzero(row).tolist() for row in mask]
    assert at.shape == valid.shape == (len(mask), int(mask.sum(1).max()))
    assert ((at >= 0) & (at < mask.shape[1])).all()  # padding can be gathered with, too


def test_nearest_visible_is_the_nearest(batch: MaskedText) -> None:
    nearest = batch.nearest_visible()
    for i in range(batch.size):
        seen = batch.context_at[i][batch.context_valid[i]].tolist()
        for hidden, found in zip(batch.hidden_at[i], nearest[i], strict=True):
            assert int(found) in seen
            assert abs(int(hidden) - int(found)) == min(abs(int(hidden) - place) for place in seen)


def test_masks_come_from_each_rows_own_generator(tokenizer: TextTokenizer) -> None:
    """So a row's mask does not depend on its neighbours, nor on its place in the batch."""
    collate = MaskedTextCollator(tokenizer, any_masker)
    together, alone = collate(rows()), collate([rows()[2]])
    assert torch.equal(together.hidden[2, : LENGTHS[2]], alone.hidden[0])
    backwards = collate(rows()[::-1])
    assert torch.equal(backwards.hidden.flip(0), together.hidden)


def test_texts_to_embed_hide_nothing(tokenizer: TextTokenizer) -> None:
    texts = ["one text", "", "a text that is far too long to fit"]
    batch = MaskedTextCollator(tokenizer, Halves()).inputs(max_len=12)(texts)
    assert not batch.hidden.any()
    assert batch.hidden_at.shape == (3, 0)
    assert len(batch.span_at) == 0
    assert torch.equal(batch.context_valid, batch.valid)
    assert (batch.valid.sum(1) >= 1).all()  # an empty text still has a vector
    assert batch.ids.shape[1] == 12
    assert batch.nearest_visible().shape == (3, 0)
    assert tokenizer.decode(batch.ids[0][batch.valid[0]].tolist()) == "one text"


def test_only_a_wrapped_text_has_specials(tokenizer: TextTokenizer) -> None:
    batch = MaskedTextCollator(tokenizer, Halves())(rows(wrapped=False))
    assert batch.hidden[:, 0].all()
