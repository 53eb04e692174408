"""Examples run as they stand."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_minimal_jepa_learns(capsys: pytest.CaptureFixture[str]) -> None:
    """Shortened: predictions beat the best constant, and digits are told apart better than by the untrained encoder."""
    figures = runpy.run_path(str(EXAMPLES / "minimal_jepa.py"))["main"](steps=60)
    assert {"loss", "skill", "rank", "knn", "knn pixels", "knn untrained"} == set(figures)
    assert figures["skill"] > 0
    assert figures["knn"] > figures["knn untrained"] + 0.1
    assert "skill" in capsys.readouterr().out
