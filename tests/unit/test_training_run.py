"""A training run: what it changes around itself, and that it puts it back."""

from __future__ import annotations

import contextlib

import pytest
import torch

from openjepa.training_run import compute_threads


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("wanted", "within"), [(2, 2), (0, 3)])
def test_threads_are_set_within_and_put_back_even_after_an_error(wanted: int, within: int) -> None:
    torch.set_num_threads(3)
    seen = []
    with contextlib.suppress(RuntimeError), compute_threads(wanted):
        seen.append(torch.get_num_threads())
        raise RuntimeError("stopped")
    assert seen == [within]
    assert torch.get_num_threads() == 3
