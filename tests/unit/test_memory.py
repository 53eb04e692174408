"""Peak memory: of the block, not of what came before it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from openjepa.core.memory import RESET, listed_peaks, peak_memory

LARGE = 300_000_000  # bytes


@pytest.mark.skipif(sys.platform != "linux" or not RESET.exists(), reason="the kernel keeps no peak to be set back")
def test_a_block_has_a_peak_of_its_own() -> None:
    with peak_memory() as large:
        np.ones(LARGE, dtype=np.uint8).sum()
    with peak_memory() as small:
        pass
    assert large.gb is not None
    assert small.gb is not None
    assert 0.05 < small.gb < large.gb
    assert large.gb - small.gb == pytest.approx(LARGE / 1e9, rel=0.2)


def test_peaks_are_said_in_gigabytes() -> None:
    assert listed_peaks({"training": 2.913, "evaluation": 3.36}) == "training 2.9 GB, evaluation 3.4 GB"
