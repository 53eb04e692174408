"""Laws of the block mask: closed form, causality, and one masked pass equals question and answer read apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openjepa.core.seeding import generator_for, seed_global
from openjepa.masking.attention import (
    ANSWER,
    PADDING,
    PRED,
    QUESTION,
    question_answer_mask,
    question_answer_positions,
    segment_ids,
)
from openjepa.models.decoder import Decoder, DecoderConfig

VOCAB, DIM = 50, 16
Q, A, P, X = QUESTION, ANSWER, PRED, PADDING
ROWS = torch.tensor([[Q, Q, Q, A, A, P, X], [Q, Q, A, A, A, A, P]])
SIZES = [(3, 2), (2, 4)]  # question with [SEP], answer


def test_a_small_case_in_full() -> None:
    allowed = [
        "1......",
        "11.....",
        "111....",
        "...1...",
        "...11..",
        "111..1.",
        "......1",
    ]
    expected = torch.tensor([[cell == "1" for cell in row] for row in allowed])
    assert torch.equal(question_answer_mask(ROWS)[0], expected)
    assert question_answer_positions(ROWS).tolist() == [[0, 1, 2, 0, 1, 3, 0], [0, 1, 0, 1, 2, 3, 2]]


def test_segments_come_from_what_a_batch_says() -> None:
    assert torch.equal(segment_ids(ROWS != X, ROWS == A, (ROWS == P).long().argmax(1)), ROWS)
    alone = segment_ids(torch.tensor([[True, True, False]]), torch.tensor([[True, True, False]]), None)
    assert alone.tolist() == [[A, A, X]]


def test_no_token_reads_nothing_and_nobody_reads_padding() -> None:
    mask = question_answer_mask(torch.full((1, 4), X))
    assert torch.equal(mask[0], torch.eye(4, dtype=torch.bool))
    others = question_answer_mask(ROWS) & ~torch.eye(ROWS.shape[1], dtype=torch.bool)
    assert not others[(ROWS == X)[:, None, :].expand_as(others)].any()


@pytest.fixture
def decoder() -> Decoder:
    seed_global(0, "test")
    return Decoder(DecoderConfig(dim=DIM, depth=2, heads=2, max_len=16), VOCAB).eval()


def states(decoder: Decoder, ids: Tensor, segments: Tensor = ROWS) -> Tensor:
    with torch.no_grad():
        return decoder(ids, question_answer_mask(segments), question_answer_positions(segments))


def some_ids() -> Tensor:
    return torch.randint(VOCAB, ROWS.shape, generator=generator_for(0, "test"))


def test_a_token_changes_only_those_that_may_read_it(decoder: Decoder) -> None:
    """Through every layer: what the mask forbids stays bit-identical, what it allows moves."""
    ids = some_ids()
    before, mask = states(decoder, ids), question_answer_mask(ROWS)
    for position in range(ROWS.shape[1]):
        other = ids.clone()
        other[:, position] = (other[:, position] + 1) % VOCAB
        moved = (states(decoder, other) != before).any(-1)  # [B, T]
        assert torch.equal(moved, mask[:, :, position])


def test_one_pass_equals_separate_passes(decoder: Decoder) -> None:
    """The question alone (with [PRED] behind it) and the answer alone, under a plain causal mask from position 0."""
    ids = some_ids()
    together = states(decoder, ids)
    for row, (question, answer) in enumerate(SIZES):
        pred = question + answer
        asked = torch.cat([ids[row, :question], ids[row, pred : pred + 1]])
        for alone, found in (
            (asked, torch.cat([together[row, :question], together[row, pred : pred + 1]])),
            (ids[row, question:pred], together[row, question:pred]),
        ):
            causal = torch.ones(1, len(alone), len(alone), dtype=torch.bool).tril()
            with torch.no_grad():
                expected = decoder(alone[None], causal)[0]
            assert torch.allclose(found, expected, atol=1e-5)


def test_positions_that_go_on_are_not_separate_passes(decoder: Decoder) -> None:
    """The known defect: the same answer gets another latent after another question."""
    ids = some_ids()
    ids[1, 2:4] = ids[0, 3:5]
    with torch.no_grad():
        running = decoder(ids, question_answer_mask(ROWS), torch.arange(ROWS.shape[1]).expand_as(ROWS))
    restarted = states(decoder, ids)
    assert torch.allclose(restarted[0, 4], restarted[1, 3], atol=1e-5)
    assert (running[0, 4] - running[1, 3]).abs().max() > 1e-3
