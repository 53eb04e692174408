"""A teacher that reads spans reads them packed into rows: the same latents as from each span as a text of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from openjepa.data.masked_text import MaskedText, places_of, spans_of
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.transformer import TextEncoder, key_mask, take


def batch_of(hidden: Tensor, valid: Tensor) -> MaskedText:
    ids = torch.randint(5, 50, hidden.shape, generator=torch.Generator().manual_seed(0))
    context_at, context_valid = places_of(valid & ~hidden)
    hidden_at, hidden_valid = places_of(hidden)
    span_at, span_valid = spans_of(hidden)
    return MaskedText(
        keys=torch.arange(len(ids)), ids=ids, valid=valid, hidden=hidden, context_at=context_at,
        context_valid=context_valid, hidden_at=hidden_at, hidden_valid=hidden_valid, span_at=span_at,
        span_valid=span_valid, real_tokens=int(valid.sum()), vocab=50,
    )  # fmt: skip


def batch() -> MaskedText:
    """Spans of 1 to 4 tokens, at both ends too; the second row is short, with padding right after its last span."""
    rows = ["hh.hhhh..h.h", "hhh.........", ".h..h.hh.hhh"]
    hidden = torch.tensor([[letter == "h" for letter in row] for row in rows])
    valid = torch.ones_like(hidden)
    valid[1, 9:] = False
    return batch_of(hidden, valid)


def test_who_reads_whom_and_where() -> None:
    segments, places = batch().packed_spans
    may_read = key_mask(segments)[:, 0]  # [B, H, H]
    assert places[0].tolist() == [0, 1, 0, 1, 2, 3, 0, 0]
    assert places[1, :3].tolist() == [0, 1, 2]
    assert places[2, :7].tolist() == [0, 0, 0, 1, 0, 1, 2]
    spans = [range(0, 2), range(2, 6), range(6, 7), range(7, 8)]
    expected = torch.tensor([[any(i in span and j in span for span in spans) for j in range(8)] for i in range(8)])
    assert torch.equal(may_read[0], expected)
    assert (segments[1, 3:] == -1).all()
    assert not may_read[1, :3, 3:].any()  # padding is apart from the span next to it
    assert may_read.diagonal(dim1=1, dim2=2).all()  # nothing reads nothing


def encoder_of(kind: str, folder: Path) -> TextEncoder | PretrainedEncoder:
    torch.manual_seed(0)
    if kind == "own":
        return TextEncoder(50, dim=32, depth=2, heads=4, max_len=16)
    from transformers import BertConfig, DistilBertConfig, RobertaConfig

    if kind == "distilbert":
        config = DistilBertConfig(
            vocab_size=50, max_position_embeddings=16, n_layers=2, dim=32, n_heads=4, hidden_dim=64
        )
    else:
        config = {"bert": BertConfig, "roberta": RobertaConfig}[kind.removesuffix(", eager")](
            vocab_size=50, max_position_embeddings=20, num_hidden_layers=2, hidden_size=32, num_attention_heads=4,
            intermediate_size=64,
        )  # fmt: skip
    config.save_pretrained(folder)
    encoder = PretrainedEncoder(str(folder), weights=False)
    if kind.endswith("eager"):
        encoder.model.set_attn_implementation("eager")
    return encoder


@pytest.mark.parametrize("kind", ["own", "distilbert", "bert", "bert, eager", "roberta"])
def test_packed_spans_have_the_latents_of_texts_of_their_own(kind: str, tmp_path: Path) -> None:
    encoder, spans = encoder_of(kind, tmp_path).eval(), batch()
    alone = encoder.states(spans.ids.flatten()[spans.span_at], spans.span_valid)  # each [S, L, D]
    packed = encoder.states(take(spans.ids, spans.hidden_at), *spans.packed_spans)  # each [B, H, D]
    assert len(alone) == len(packed) == 3
    for one, row in zip(alone, packed, strict=True):
        torch.testing.assert_close(row[spans.hidden_valid], one[spans.span_valid])
