"""Training still does what it did: the loss curve of a small T-JEPA against the recorded one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.record import GOLDEN, MEASURED, curve

TOLERANCE = 1e-3  # relative; other CPUs and library versions differ by about 1e-5
ADVICE = "if this was meant, review the difference and record it again: make golden (python -m tests.golden.record)"


def test_the_curve_is_the_recorded_one(tmp_path: Path) -> None:
    golden, now = json.loads(GOLDEN.read_text()), curve(tmp_path)
    for name in MEASURED:
        assert now[name] == pytest.approx(golden[name], rel=TOLERANCE), f"{name} moved; {ADVICE}"
    assert golden["loss"][-1] < golden["loss"][0]
