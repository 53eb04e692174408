"""Texts that share rows: every latent and every gradient is that of the text read by itself, in fewer positions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openjepa.core.seeding import generator_for
from openjepa.models.attention import SHORT
from openjepa.models.pretrained import PACKED, PretrainedEncoder
from openjepa.models.sequence_packing import STEP, SequencePacking, best_fit, fewest_positions
from openjepa.models.transformer import TextEncoder, key_mask

T, VOCAB, ROOM = 12, 40, 200
SEGMENTS = torch.tensor([
    [0] * 12,
    [3] * 2 + [1] * 4 + [-1] * 6,
    [0] * 1 + [-1] * 11,
    [-1] * 5 + [2] * 3 + [-1] * 2 + [2] * 2,  # a text with a gap
    [0] * 5 + [1] * 1 + [-1] * 6,
])  # fmt: skip
LENGTHS = [12, 4, 2, 1, 5, 5, 1]  # row by row, by number
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": ROOM,
}  # fmt: skip
OTHER_NAMES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "electra": {"embedding_size": 8},
}


def encoder_of(kind: str, folder: Path, **sizes: Any) -> PretrainedEncoder:
    from transformers import AutoConfig

    torch.manual_seed(0)
    AutoConfig.for_model(kind, **{**SIZES, **OTHER_NAMES.get(kind, {}), **sizes}).save_pretrained(folder)
    return PretrainedEncoder(str(folder), weights=False).eval()


def texts() -> Iterator[tuple[int, Tensor]]:
    """Row and positions of each text."""
    for row, numbers in enumerate(SEGMENTS):
        for number in sorted({int(n) for n in numbers if n >= 0}):
            yield row, (numbers == number).nonzero()[:, 0]


def ids_and_positions() -> tuple[Tensor, Tensor]:
    generator = generator_for(0, "sequence packing")
    ids = torch.randint(5, VOCAB, SEGMENTS.shape, generator=generator)
    return ids, torch.arange(T).expand_as(ids) + 3 * torch.arange(len(ids))[:, None]


def test_texts_keep_to_their_rows_and_none_overlaps() -> None:
    lengths = torch.randint(1, 60, (300,), generator=generator_for(0, "lengths")).tolist()
    rows, starts = best_fit(lengths, 64)
    taken = torch.zeros(rows * 64, dtype=torch.int64)
    for length, start in zip(lengths, starts, strict=True):
        assert start // 64 == (start + length - 1) // 64
        taken[start : start + length] += 1
    assert taken.max() == 1
    assert taken.view(rows, 64).any(1).all()
    assert rows <= 1.25 * sum(lengths) / 64


def test_the_fullest_row_with_room_is_taken() -> None:
    assert best_fit([3, 8, 2, 6, 1], 10) == (2, [16, 0, 8, 10, 19])
    assert best_fit([10], 10) == (1, [0])
    assert best_fit([], 10) == (0, [])


def test_what_is_packed_comes_back_and_padding_is_zero() -> None:
    packing, (ids, _) = SequencePacking(SEGMENTS, ROOM), ids_and_positions()
    assert packing.size == (1, STEP)  # for 30 tokens
    assert sorted(packing.segments[packing.segments >= 0].bincount().tolist()) == sorted(LENGTHS)
    packed = packing.pack(ids)
    assert not packed[packing.segments < 0].any()
    for number, (row, at) in enumerate(texts()):
        assert torch.equal(packed[packing.segments == number], ids[row, at])  # in order
    back = packing.unpack(packed[..., None].double())[..., 0]
    assert torch.equal(back, ids.where(SEGMENTS >= 0, 0).double())
    x = torch.randn(*packing.size, 2, generator=generator_for(0, "x")).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: packing.unpack(x).square(), [x], fast_mode=True)


def test_rows_that_would_save_little_stay_as_they_are() -> None:
    full = torch.zeros(20, 64, dtype=torch.int64)
    assert not SequencePacking(full, ROOM).worth
    assert not SequencePacking(full - 1, ROOM).worth  # nothing to read
    assert not SequencePacking(full[:, :0], ROOM).worth
    half = full.masked_fill(torch.arange(64) >= 32, -1)
    assert SequencePacking(half, ROOM).size == (10, 64)
    assert SequencePacking(half, longest=50).size == (10, 64)  # never shorter than a row


def test_the_length_with_the_fewest_positions_is_taken() -> None:
    lengths = [40, 40, 40, 20]
    assert fewest_positions(lengths, 40, ROOM)[0] == (1, 160)  # not 3 rows of 64 or 2 of 96: 192 positions
    assert fewest_positions(lengths, 40, 150)[0] == (3, 64)  # of equally good ones the shortest
    assert fewest_positions(lengths, 40, 50)[0] == (4, 40)
    assert fewest_positions([STEP] * 3, STEP, ROOM)[0] == (3, STEP)


def test_no_row_gets_so_long_that_attention_is_slow() -> None:
    assert fewest_positions([144] * 2, 192, longest=512)[0] == (2, 192)  # 288 would do for both
    assert fewest_positions([100] * 5, SHORT, longest=512)[0] == (3, SHORT)
    assert fewest_positions([200] * 3, 300, longest=512)[0] == (3, 320)  # slow as they are, and no longer than need be


@pytest.mark.parametrize("kind", sorted(PACKED))
def test_latents_and_gradients_are_those_of_texts_by_themselves(kind: str, tmp_path: Path) -> None:
    encoder, (ids, positions) = encoder_of(kind, tmp_path), ids_and_positions()
    assert encoder.packing(SEGMENTS[:1]) is None
    many = 4  # times the same rows
    ids, positions, segments = ids.repeat(many, 1), positions.repeat(many, 1), SEGMENTS.repeat(many, 1)
    packing = encoder.packing(segments)
    assert packing is not None
    together = encoder.states(ids, segments, positions)
    of_texts = [(row + copy * len(SEGMENTS), at) for copy in range(many) for row, at in texts()]
    apart = [
        encoder.states(ids[row, at][None], torch.ones(1, len(at), dtype=torch.bool), positions[row, at][None])
        for row, at in of_texts
    ]
    weight = torch.randn(16, generator=generator_for(0, "weight"))
    gradients = []
    for found in (
        [torch.cat([state[row, at] for row, at in of_texts]) for state in together],
        [torch.cat([states[layer][0] for states in apart]) for layer in range(len(together))],
    ):
        loss = (found[-1] * weight).sum()
        used = [p for p in encoder.parameters() if p.requires_grad]
        gradients.append((found, torch.autograd.grad(loss, used, allow_unused=True)))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    assert not together[-1][segments < 0].any()
    assert torch.equal(encoder(ids, segments, positions), together[-1])


def test_a_model_that_is_told_no_positions_reads_shared_rows_too(tmp_path: Path) -> None:
    encoder, (ids, positions) = encoder_of("distilbert", tmp_path), (one.repeat(4, 1) for one in ids_and_positions())
    told = encoder(ids, SEGMENTS.repeat(4, 1), positions)
    encoder.takes_positions = False
    torch.testing.assert_close(encoder(ids, SEGMENTS.repeat(4, 1), positions), told)


def test_rows_are_no_longer_than_the_model_has_positions(tmp_path: Path) -> None:
    encoder = encoder_of("distilbert", tmp_path, max_position_embeddings=40)
    valid = torch.arange(34) < torch.tensor([34] + [17] * 9)[:, None]
    packing = encoder.packing(valid)
    assert packing is not None
    assert packing.size == (6, 34)  # three shorter ones would fit into 64


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_padded_rows_that_share_rows_have_the_latents_of_the_wrapped_model(kind: str, tmp_path: Path) -> None:
    encoder = encoder_of(kind, tmp_path)
    ids = torch.randint(5, VOCAB, (16, 100), generator=generator_for(0, "ids"))
    valid = torch.arange(100) < torch.randint(1, 40, (16, 1), generator=generator_for(0, "valid"))
    valid[0] = True
    assert encoder.packing(valid) is not None
    said = encoder.model(input_ids=ids, attention_mask=valid.long()).last_hidden_state
    torch.testing.assert_close(encoder(ids, valid)[valid], said[valid], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder(ids, valid, torch.arange(100).expand_as(ids))[valid], said[valid])


def test_models_that_have_more_to_say_than_the_mask_read_their_rows_as_they_are(tmp_path: Path) -> None:
    valid = torch.arange(100) < torch.full((16, 1), 3)
    for kind in ("gpt2", "modernbert", "mpnet"):  # causal, windows, a bias by distance
        sizes = (
            {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": ROOM} if kind == "gpt2" else {"pad_token_id": 1}
        )
        assert encoder_of(kind, tmp_path / kind, **sizes).packing(valid) is None
    encoder = encoder_of("bert", tmp_path / "bert")
    assert encoder.packing(valid) is not None
    assert encoder.packing(valid[:, None] & valid[:, :, None]) is None  # who may read whom may be anything
    encoder.model.config.is_decoder = True
    assert encoder.packing(valid) is None
    encoder.model.config.is_decoder = False
    encoder.model.set_attn_implementation("eager")
    assert encoder.packing(valid) is None


def test_segments_are_a_mask_of_who_may_read_whom() -> None:
    """Also to an encoder of our own, which leaves the padding out in its own way."""
    ids, positions = (one.repeat(8, 1) for one in ids_and_positions())
    segments = SEGMENTS.repeat(8, 1)
    may_read, real = segments[:, :, None] == segments[:, None, :], segments >= 0
    assert torch.equal(key_mask(segments), key_mask(may_read))
    torch.manual_seed(0)
    own = TextEncoder(VOCAB, dim=16, depth=2, heads=2, max_len=40).eval()
    for one, other in zip(own.states(ids, segments, positions), own.states(ids, may_read, positions), strict=True):
        torch.testing.assert_close(one[real], other[real])
    read: list[int] = []
    own.trunk.blocks[0].qkv.register_forward_hook(lambda _, given, __: read.append(given[0].shape[:-1].numel()))
    own(ids, segments, positions), own(ids, may_read, positions)
    assert read == [256, real.numel()]  # for 240 tokens in 480 positions
