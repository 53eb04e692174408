"""Examples run as they stand."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_minimal_jepa_learns(capsys: pytest.CaptureFixture[str]) -> None:
    """Shortened: the figures are there, and predictions beat the best constant."""
    figures = runpy.run_path(str(EXAMPLES / "minimal_jepa.py"))["main"](steps=60)
    assert {"loss", "skill", "rank", "knn", "knn pixels", "knn untrained"} == set(figures)
    assert figures["skill"] > 0.1
    assert "skill" in capsys.readouterr().out
