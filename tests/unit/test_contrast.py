"""`candidate_info_nce` and its similarities: closed forms, equality with torch's cross-entropy, and invariances."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.objectives.contrast import (
    ContrastConfig,
    LateContrast,
    Similarity,
    candidate_info_nce,
    info_nce,
    nt_xent,
    similarities,
)

M, N, D = 4, 7, 8
ANSWER = torch.tensor([1, 2, 5, 6])
ALL = torch.ones(M, N, dtype=torch.bool)
T = 0.5


def normal(*shape: int, draw: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator_for(0, "contrast", draw))


def told(predicted: Tensor, pool: Tensor, answer: Tensor = ANSWER, among: Tensor = ALL,
         kind: Similarity = "cosine") -> Tensor:  # fmt: skip
    return candidate_info_nce(similarities(predicted, pool, kind), answer, among, T)


def test_a_pool_of_equals_costs_the_log_of_its_size() -> None:
    alike = normal(1, D).expand(N, D)
    assert told(normal(M, D), alike).tolist() == pytest.approx(M * [math.log(N)])


def test_right_predictions_among_orthogonal_targets_have_the_closed_form() -> None:
    pool = torch.eye(D)[:N]
    expected = math.log(1 + (N - 1) * math.exp(-1 / T))
    assert told(pool[ANSWER], pool).tolist() == pytest.approx(M * [expected])


def test_equal_to_the_cross_entropy_of_torch_and_blind_to_lengths() -> None:
    predicted, pool = normal(M, D), normal(N, D, draw=1)
    cosines = F.cosine_similarity(predicted[:, None], pool[None], dim=-1)  # [M, N]
    expected = F.cross_entropy(cosines / T, ANSWER, reduction="none")
    torch.testing.assert_close(told(predicted, pool), expected)
    torch.testing.assert_close(told(7 * predicted, 0.2 * pool), expected)


def test_its_gradient_turns_a_prediction_to_its_target_and_from_the_others() -> None:
    predicted = torch.ones(M, D, requires_grad=True)
    told(predicted, torch.eye(D)[:N]).sum().backward()
    down = -predicted.grad  # [M, D]
    own = F.one_hot(ANSWER, D).bool()
    assert (down[own] > 0).all()
    assert (down[:, :N][~own[:, :N]] < 0).all()


def test_only_candidates_count() -> None:
    predicted, pool = normal(M, D), normal(N, D, draw=1)
    among = ALL.clone()
    among[:, [0, 3]] = False
    fewer = torch.tensor([0, 1, 3, 4])  # the same answers without the two
    expected = told(predicted, pool[[1, 2, 4, 5, 6]], fewer, ALL[:, :5])
    torch.testing.assert_close(told(predicted, pool, among=among), expected)


def test_products_have_their_closed_form_and_do_not_see_what_all_candidates_share() -> None:
    predicted, pool, shared = normal(M, D), normal(N, D, draw=1), 3 * normal(D, draw=2)
    expected = F.cross_entropy(torch.einsum("md,nd->mn", predicted, pool) / D / T, ANSWER, reduction="none")
    torch.testing.assert_close(told(predicted, pool, kind="product"), expected)
    torch.testing.assert_close(told(predicted, pool + shared, kind="product"), expected)
    assert (told(predicted, pool + shared) - told(predicted, pool)).abs().max() > 0.1  # a cosine does


def test_predicting_more_of_what_candidates_share_costs_products_nothing() -> None:
    shared = F.one_hot(torch.tensor(D - 1), D).float()
    pool = torch.eye(D)[:N] + shared
    right, righter = pool[ANSWER], pool[ANSWER] + 9 * shared
    torch.testing.assert_close(told(righter, pool, kind="product"), told(right, pool, kind="product"))
    assert (told(righter, pool) > told(right, pool) + 0.01).all()


DOCUMENT = torch.tensor([0, 0, 0, 1, 1, 1, 1])  # [N]


@pytest.mark.parametrize("similarity", ["cosine", "product"])
def test_a_late_contrast_is_the_mean_loss_among_the_sentences_of_a_document(similarity: Similarity) -> None:
    contrast = LateContrast(ContrastConfig(similarity=similarity, weight=0.5, start=0.4))
    predicted, pool = normal(M, D), normal(N, D, draw=1)
    own = DOCUMENT[ANSWER][:, None] == DOCUMENT  # [M, N]
    temperature = {"cosine": 0.1, "product": 1.0}[similarity]
    expected = candidate_info_nce(similarities(predicted, pool, similarity), ANSWER, own, temperature).mean()
    found = contrast(predicted, pool, ANSWER, DOCUMENT, Progress(1, 1))
    torch.testing.assert_close(found, 0.5 * expected)
    other = torch.where(DOCUMENT[:, None] == 1, pool, normal(N, D, draw=2))  # the first document's sentences changed
    moved = contrast(predicted, other, ANSWER, DOCUMENT, Progress(1, 1))
    last = contrast(predicted[2:], other, ANSWER[2:], DOCUMENT, Progress(1, 1))
    assert abs(float(moved - found)) > 1e-3
    torch.testing.assert_close(contrast(predicted[2:], pool, ANSWER[2:], DOCUMENT, Progress(1, 1)), last)


def test_the_weight_of_a_late_contrast_is_a_function_of_progress() -> None:
    contrast = LateContrast(ContrastConfig(weight=0.4, start=0.6))
    steps = (0, 60, 80, 100, 70, 0)
    assert [contrast.weight(Progress(step, 100)) for step in steps] == pytest.approx([0, 0, 0.2, 0.4, 0.1, 0])
    assert not isinstance(contrast, torch.nn.Module)  # nothing to save


def late(predicted: Tensor, pool: Tensor, document: Tensor, similarity: Similarity = "cosine") -> Tensor:
    return LateContrast(ContrastConfig(similarity=similarity, weight=1.0))(
        predicted, pool, ANSWER, document, Progress(1, 1)
    )


@pytest.mark.parametrize("similarity", ["cosine", "product"])
def test_a_late_contrast_is_that_of_a_loop_over_predictions(similarity: Similarity) -> None:
    predicted, pool = normal(M, D), normal(N, D, draw=1)
    losses = []
    for own, answer in zip(predicted, ANSWER.tolist(), strict=True):
        members = [n for n in range(N) if DOCUMENT[n] == DOCUMENT[answer]]
        cosines, products = F.cosine_similarity(own[None], pool[members]) / 0.1, pool[members] @ own / D
        similar = cosines if similarity == "cosine" else products
        losses.append(-F.log_softmax(similar, 0)[members.index(answer)])
    torch.testing.assert_close(late(predicted, pool, DOCUMENT, similarity), torch.stack(losses).mean())


def test_alike_sentences_cost_the_log_of_the_size_of_their_document() -> None:
    found = late(normal(M, D), normal(1, D).expand(N, D), DOCUMENT)
    assert float(found) == pytest.approx((math.log(3) + math.log(4)) / 2)


def test_a_document_that_hides_nothing_plays_no_part() -> None:
    predicted, pool = normal(M, D), normal(N + 3, D, draw=1).requires_grad_()
    found = late(predicted, pool, torch.cat([DOCUMENT, torch.full((3,), 2)]))
    torch.testing.assert_close(found, late(predicted, pool[:N], DOCUMENT))
    found.backward()
    assert pool.grad is not None
    assert (pool.grad[:N].abs().sum(1) > 0).all()
    assert not pool.grad[N:].any()


@pytest.mark.parametrize("loss", [info_nce, nt_xent, None], ids=["info_nce", "nt_xent", "similarities"])
def test_products_stay_in_fp32_under_autocast(loss: Any) -> None:
    first, second = F.normalize(normal(6, 16), dim=-1).requires_grad_(), F.normalize(normal(6, 16, draw=1), dim=-1)

    def value() -> Tensor:
        return similarities(first, second, "cosine").sum() if loss is None else loss(first, second, 0.05)

    exact = value()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = value()
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, exact)
    (gradient,) = torch.autograd.grad(mixed, first)
    torch.testing.assert_close(gradient, torch.autograd.grad(exact, first)[0])
