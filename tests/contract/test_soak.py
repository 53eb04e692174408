"""Ten faults over one training: its weights and its samples are those of an undisturbed one (benchmarks/soak.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import FAULTS, lost_or_twice, soak


def test_ten_faults_change_nothing(tmp_path: Path) -> None:
    result = soak(tmp_path, events=10, steps=60, seed=1)
    assert result["differences"] == []
    assert {event.partition(":")[0] for event in result["events"]} == set(FAULTS)
    assert sum("damaged" in event for event in result["events"]) >= 2
    assert "is used instead of" in (tmp_path / "disturbed.log").read_text()


@pytest.mark.parametrize(
    ("batches", "complaint"),
    [
        ([[0, 1], [2, 3], [3, 0], [1, 2], [0, 2]], None),
        ([[0, 1], [1, 2], [3, 0], [2, 3]], "step 1 reads samples a second time"),
        ([[0, 1], [2, 3], [0, 1], [0, 1], [0, 1]], "more often than others"),
    ],
)
def test_samples_that_are_lost_or_seen_twice_are_found(batches: list[list[int]], complaint: str | None) -> None:
    found = lost_or_twice(batches)
    assert found == [] if complaint is None else complaint in found[0]
