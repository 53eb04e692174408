"""What a method returns: a loss that is the sum of its terms, and latents that no gradient can reach."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.method import Latents, StepOutput, latents_of


def test_the_loss_is_the_sum_of_its_terms_and_so_is_its_gradient() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    output = StepOutput({"a": x.sum(), "b": 2 * x[0], "c": x.square().sum()})
    assert float(output.loss.detach()) == 6 + 2 + 14
    output.loss.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1 + 2 + 2, 1 + 4, 1 + 6]


def test_a_loss_of_nothing_and_terms_that_are_no_scalars_are_named() -> None:
    with pytest.raises(UserError, match="the loss has no term: return StepOutput"):
        _ = StepOutput({}).loss
    with pytest.raises(UserError, match=r"the term prediction of the loss is no scalar but \[5\]: use mean_over_ranks"):
        _ = StepOutput({"variance": torch.zeros(()), "prediction": torch.zeros(5)}).loss


def test_latents_are_detached_and_know_whether_their_target_was() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    free, held = Latents(2 * x, x.detach()), Latents(2 * x, 3 * x)
    for latents in (free, held):
        assert not latents.predicted.requires_grad
        assert not latents.target.requires_grad
    assert (free.target_had_graph, held.target_had_graph) == (False, True)
    assert Latents(held.predicted, held.target, held.target_had_graph).target_had_graph  # as Fabric rebuilds them


def test_a_method_that_shows_no_latents_is_named() -> None:
    latents = Latents(torch.zeros(1, 2), torch.zeros(1, 2))
    terms = {"prediction": torch.zeros(())}
    assert latents_of(nn.Identity(), StepOutput(terms, latents)) is latents
    with pytest.raises(UserError, match="Identity gives no latents in eval mode"):
        latents_of(nn.Identity(), StepOutput(terms))
