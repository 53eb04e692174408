"""A teacher that reads spans reads them packed into rows: the same latents as from each span as a text of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from openjepa.core.experiment import Sample
from openjepa.core.seeding import generator_for
from openjepa.data.text.corpus import TokenRow
from openjepa.data.text.masked import MaskedText, MaskedTextCollator
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.transformer import TextEncoder, gather_positions, key_mask


def all_maskable(valid: Tensor, generator: torch.Generator) -> Tensor:
    return valid


def batch() -> MaskedText:
    """Spans of 1 to 4 tokens, at both ends too; the second row is short, with padding right after its last span."""
    rows = ["hh.hhhh..h.h", "hhh......", ".h..h.hh.hhh"]
    collate = MaskedTextCollator(train_tokenizer(TokenizerConfig(kind="bytes"), ()), all_maskable)
    drawn = np.random.default_rng(0)
    samples = []
    for number, row in enumerate(rows):
        ids = drawn.integers(5, 50, len(row)).astype(np.int32)
        samples.append(TokenRow(ids, np.array([letter == "." for letter in row]), number))
    return collate([Sample(sample, generator_for(0, "unused"), sample.document) for sample in samples])


def test_who_reads_whom_and_where() -> None:
    hidden = batch().hidden_tokens
    segments, positions = hidden.segment, hidden.positions
    may_read = key_mask(segments)[:, 0]  # [B, H, H]
    assert positions[0].tolist() == [0, 1, 0, 1, 2, 3, 0, 0]
    assert positions[1, :3].tolist() == [0, 1, 2]
    assert positions[2, :7].tolist() == [0, 0, 0, 1, 0, 1, 2]
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
    encoder, spans, hidden = encoder_of(kind, tmp_path).eval(), batch(), batch().hidden_tokens
    texts = [spans.ids[spans.segment == number] for number in range(len(spans.row))]
    ids = pad_sequence(texts, batch_first=True)  # [N, L]
    valid = torch.arange(ids.shape[1]) < torch.tensor([len(text) for text in texts])[:, None]
    assert valid.sum(1).tolist() == [2, 4, 1, 1, 3, 1, 1, 2, 3]
    alone = encoder.states(ids, valid)  # each [N, L, D]
    packed = encoder.states(gather_positions(spans.ids, hidden.at), hidden.segment, hidden.positions)  # each [B, H, D]
    assert len(alone) == len(packed) == 3
    for one, row in zip(alone, packed, strict=True):
        torch.testing.assert_close(row[hidden.valid], one[valid])
