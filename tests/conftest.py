"""Shared by all tests: one thread (results and timings do not depend on the machine), no network, own cache."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Tests are of the CPU, where results are the same everywhere; `-m gpu` runs those that need a GPU."""
    if config.option.markexpr.strip() != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to, or reads from, the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield
