"""What users import stays as it is, unless its change is recorded."""

from __future__ import annotations

import difflib
import subprocess
import sys

import pytest

import openjepa.recipe
from tests.public_api import RECORD, public_api


def test_the_public_api_is_the_recorded_one() -> None:
    recorded, found = RECORD.read_text(encoding="utf-8").splitlines(), public_api()
    changes = list(difflib.unified_diff(recorded, found, "recorded", "now", lineterm="", n=0))
    assert not changes, "\n".join(["the public API has changed; if it was meant to: make api", *changes])


def test_the_record_does_not_depend_on_the_process() -> None:
    """No addresses, no order of sets: another process with another hash seed describes the same."""
    code = "from tests.public_api import public_api; print('\\n'.join(public_api()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == public_api()
    assert " at 0x" not in done.stdout


@pytest.mark.parametrize("change", ["gone", "new", "other signature"])
def test_a_change_is_seen(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = public_api()
    if change == "gone":
        monkeypatch.setattr(openjepa.recipe, "__all__", openjepa.recipe.__all__[1:])
    elif change == "new":
        monkeypatch.setattr(openjepa.recipe, "__all__", [*openjepa.recipe.__all__, "annotations"])
    else:
        monkeypatch.setattr(openjepa.recipe, "mean_pool", lambda x, valid, more=1: x)
    after = public_api()
    assert set(before) ^ set(after)
    if change == "other signature":
        assert set(after) - set(before) == {"openjepa.recipe.mean_pool(x, valid, more=1)"}
