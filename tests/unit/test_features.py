"""Laws of embedding: order and batching change nothing, training flags come back, zero rows have cosine 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.compute import Compute
from openjepa.core.errors import UserError
from openjepa.core.method import Method, StepOutput
from openjepa.evals.features import cosine_rows, embed_all, inner_products, unit_rows


@dataclass(kw_only=True)
class Letters(Batch):
    codes: Tensor  # [B, T], 0 = padding


class Stub(Method[Letters]):
    """Mean of letter vectors over real letters; dropout shows whether eval mode was set."""

    def __init__(self) -> None:
        super().__init__()
        vectors = torch.randn(128, 8, generator=torch.Generator().manual_seed(0))
        self.table = nn.Embedding.from_pretrained(vectors, freeze=False)
        self.dropout = nn.Dropout(0.5)
        self.teacher = nn.Linear(1, 1).eval()
        self.padding = 0
        self.grad_enabled: list[bool] = []

    def embed(self, batch: Letters) -> Tensor:
        self.grad_enabled.append(torch.is_grad_enabled())
        self.padding += int((batch.codes == 0).sum())
        real = (batch.codes > 0).unsqueeze(-1)
        return self.dropout((self.table(batch.codes) * real).sum(1) / real.sum(1))

    def forward(self, batch: Letters) -> StepOutput:
        raise NotImplementedError

    def predict_from_context(self, batch: Letters) -> Tensor:
        raise NotImplementedError


def prepare(texts: Sequence[str]) -> Letters:
    codes = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = torch.tensor([ord(c) for c in text])
    return Letters(keys=torch.arange(len(texts)), codes=codes)


TEXTS = ["abcdefgh", "b", "xyzxyzxyzxyz", "hello", "a", "worlds", "abc"] * 3


def test_rows_come_back_in_the_callers_order_whatever_the_batch_size() -> None:
    one_by_one = np.concatenate([embed_all(Stub(), prepare, [text]) for text in TEXTS])
    for batch_tokens in (1, 32, 100, 4096):
        np.testing.assert_allclose(embed_all(Stub(), prepare, TEXTS, batch_tokens), one_by_one, atol=1e-6)
    assert one_by_one.dtype == np.float32


def test_sorting_by_length_saves_padding() -> None:
    stub, unsorted = Stub(), 0
    embed_all(stub, prepare, TEXTS, batch_tokens=64)
    for start in range(0, len(TEXTS), 4):
        unsorted += int((prepare(TEXTS[start : start + 4]).codes == 0).sum())
    assert stub.padding < unsorted / 4


def test_eval_mode_without_gradients_and_each_modules_own_flag_restored() -> None:
    stub = Stub().train()
    stub.teacher.eval()
    first, second = embed_all(stub, prepare, TEXTS), embed_all(stub, prepare, TEXTS)
    np.testing.assert_array_equal(first, second)  # dropout was off
    assert not any(stub.grad_enabled)
    assert stub.training
    assert stub.dropout.training
    assert not stub.teacher.training


def test_training_flags_are_restored_after_an_error() -> None:
    stub = Stub().train()
    with pytest.raises(TypeError):
        embed_all(stub, prepare, [1, 2])
    assert stub.dropout.training


def test_bf16_is_near_fp32_and_nothing_to_embed_is_said() -> None:
    exact = embed_all(Stub(), prepare, TEXTS)
    np.testing.assert_allclose(
        embed_all(Stub(), prepare, TEXTS, compute=Compute(torch.device("cpu"), bf16=True)), exact, atol=0.05
    )
    with pytest.raises(UserError, match="nothing to embed"):
        embed_all(Stub(), prepare, [])


def test_cosines_of_dense_and_sparse_rows_agree_and_zero_rows_give_zero() -> None:
    a = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    b = np.array([[4.0, 3.0], [1.0, 1.0], [-2.0, 0.0]])
    expected = np.array([0.96, 0.0, -1.0])
    np.testing.assert_allclose(cosine_rows(a, b), expected)
    sparse_a, sparse_b = sparse.csr_array(a), sparse.csr_array(b)
    np.testing.assert_allclose(cosine_rows(sparse_a, sparse_b), expected)
    for left, right in ((a, b), (sparse_a, sparse_b)):
        np.testing.assert_allclose(np.diag(inner_products(unit_rows(left), unit_rows(right))), expected)
