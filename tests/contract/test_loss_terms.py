"""Every recipe's loss: the sum of its terms bit for bit, in value and in gradient, and each term trains something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from openjepa.core.method import Method
from openjepa.core.progress import Progress
from openjepa.data.loading.loader import train_batches
from tests.every import EVERY

END = Progress(1, 1)  # where terms that grow late are there


def gradient(method: Method, loss: Tensor) -> Tensor:
    """Of the loss, over all trainable parameters [P]; the graph is kept."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if grad is None else grad).flatten() for grad, p in pairs])


@pytest.mark.parametrize("name", EVERY)
def test_the_loss_is_the_sum_of_its_terms(name: str, tmp_path: Path) -> None:
    experiment = EVERY[name](tmp_path)
    method = experiment.method.train()
    output = method(replace(next(train_batches(experiment, 0)), progress=END))
    assert all(term.requires_grad for term in output.terms.values())
    assert torch.equal(output.loss, torch.stack(list(output.terms.values())).sum())
    gradients = {term: gradient(method, value) for term, value in output.terms.items()}
    assert all(found.isfinite().all() for found in gradients.values())
    assert [term for term, found in gradients.items() if not found.any()] == []
    torch.testing.assert_close(gradient(method, output.loss), torch.stack(list(gradients.values())).sum(0))
