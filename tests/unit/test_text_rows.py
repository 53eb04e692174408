from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openjepa.core.errors import UserError
from openjepa.encoding.rows import TextRow, count_rows, text_rows


def test_rows_of_all_kinds_of_files_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["one", "", "two \u00e9"]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    lines = ['{"text": "one"}', '{"text": 3}', "", '{"text": "two \u00e9"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(texts))
    pq.write_table(pa.table({"text": ["one", None, "two \u00e9"]}), tmp_path / "a.parquet")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    found = {
        name: list(text_rows(str(tmp_path / name) if name != "-" else "-"))
        for name in ("a.txt", "a.jsonl", "a.txt.gz", "a.parquet", "-")
    }
    assert all([row.text for row in rows] == ["one", None, "two \u00e9"] for rows in found.values())
    assert found["a.jsonl"][2] == TextRow("a.jsonl:4", "two \u00e9")
    assert [count_rows(str(tmp_path / name)) for name in ("a.txt", "a.jsonl", "a.parquet")] == [3, 3, 3]


def test_a_line_that_is_no_json_object_is_a_row_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\nnot json\n[1]\n{"text": "two"}\n')
    assert [row.text for row in text_rows(str(tmp_path / "a.jsonl"))] == ["one", None, None, "two"]


def test_a_missing_column_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n')
    with pytest.raises(UserError, match="no column 'text'; set --column to one of: body"):
        list(text_rows(str(tmp_path / "a.jsonl")))
