"""Tests that need a GPU: `pytest -m gpu`. Everywhere else they are skipped, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

CUDA = torch.device("cuda")


def requires_gpu(test: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a test as `gpu` and skips it where torch finds no CUDA device."""
    without = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; run pytest -m gpu on one")
    return pytest.mark.gpu(without(test))
