from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openjepa.core.errors import UserError
from openjepa.data.files.records import Counts
from openjepa.data.text.sources import DataConfig, documents
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


def test_a_text_beyond_the_limit_is_a_row_without_text_in_every_kind_of_file(tmp_path: Path) -> None:
    long = "word " * (2**20 // 4)
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n{{"text": "{long}"}}\n{{"text": "two"}}\n')
    (tmp_path / "a.txt").write_text(f"one\n{long}\ntwo\n")
    pq.write_table(pa.table({"text": ["one", long, "two"]}), tmp_path / "a.parquet")
    (tmp_path / "nul.txt.gz").write_bytes(gzip.compress(b"one\n" + bytes(2**21) + b"\ntwo\n"))
    for name, what in (("a.jsonl", "line"), ("a.txt", "line"), ("a.parquet", "text"), ("nul.txt.gz", "line")):
        counts = Counts()
        rows = list(text_rows(str(tmp_path / name), counts=counts, max_line_mb=1))
        assert [row.text for row in rows] == ["one", None, "two"], name
        assert counts == {"texts": 2, f"{what} longer than data.max_line_mb=1": 1}, name
    assert [row.text for row in text_rows(str(tmp_path / "a.parquet"))] == ["one", long.strip(), "two"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("surrogates.jsonl", b'{"text": "half \\ud83d of a pair here"}\n{"text": "a whole text"}\n'),
        ("digits.jsonl", b'{"text": "a whole text", "n": ' + b"9" * 5000 + b'}\n{"text": ' + b"9" * 5000 + b"}\n"),
        ("latin.txt", "caf\u00e9 au lait\nand another text\n".encode("latin-1")),
    ],
)
def test_what_training_mends_and_counts_embed_does(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    trained, embedded = Counts(), Counts()
    texts = [document.text for document in documents(DataConfig(source=str(tmp_path / name)), counts=trained)]
    rows = [row.text for row in text_rows(str(tmp_path / name), counts=embedded)]
    assert [text for text in rows if text is not None] == texts
    assert embedded.pop("texts") == trained.pop("documents")
    assert embedded == trained


def test_a_column_of_bytes_is_text_in_training_and_in_embed(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array([b"a whole text", b"caf\xe9 au lait", None], pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet")
    trained, embedded = Counts(), Counts()
    texts = [document.text for document in documents(DataConfig(source=str(tmp_path / "a.parquet")), counts=trained)]
    assert [row.text for row in text_rows(str(tmp_path / "a.parquet"), counts=embedded)] == [*texts, None]
    assert embedded["mended: not UTF-8"] == trained["mended: not UTF-8"] == 1
