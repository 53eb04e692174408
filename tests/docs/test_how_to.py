"""The Python blocks of the how-to pages run as they stand, in a folder of their own, with fewer steps."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from openjepa.cli import main
from tests.tiny import TINY

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TOPICS = ("my parcel came late and the box was open", "the invoice shows a wrong sum", "I forgot the password")


@pytest.fixture
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as help desks export it: quoted line breaks, an empty body, a label."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "tickets.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "body", "queue"])
        rows.writerows([i, f"{TOPICS[i % 3]}.\nTicket {i}, please help.", str(i % 3)] for i in range(240))
        rows.writerow([240, "", "0"])
    return tmp_path / "tickets.csv"


def test_tickets_to_neighbours(tickets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = BLOCK.findall((HOW_TO / "find-similar-tickets.md").read_text())
    tiny = ", ".join(f"{setting!r}" for setting in (*TINY, "data.eval_fraction=0.2"))
    code = block.replace("steps=1000", f"steps=4, overrides=[{tiny}], progress=False")
    assert code != block
    names: dict[str, Any] = {}
    with pytest.warns(UserWarning, match="1 of 241 texts are empty"):
        exec(compile(code, "find-similar-tickets.md", "exec"), names)
    assert names["vectors"].shape == (241, 32)
    assert not names["vectors"][240].any()
    assert names["row"].shape == (1, 3)
    assert "Name: body" in capsys.readouterr().out


def test_tickets_from_the_command_line(tickets: Path) -> None:
    lines = re.findall(r"^ {4}openjepa (.+)$", (HOW_TO / "find-similar-tickets.md").read_text(), re.MULTILINE)
    assert len(lines) == 2
    train, embed = (line.split() for line in lines)
    assert main([*train, *TINY, "data.eval_fraction=0.2", "train.steps=4", "--no-eval"]) == 0
    assert main(embed) == 0
    assert Path("vectors.parquet").exists()
