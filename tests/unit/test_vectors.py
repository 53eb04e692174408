from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openjepa.core.errors import UserError
from openjepa.encoding.vectors import TextRow, count_rows, text_rows, vector_writer

VECTORS = np.random.default_rng(0).standard_normal((2500, 7)).astype(np.float32)


def write_in_blocks(path: Path, vectors: np.ndarray, size: int = 1000) -> None:
    with vector_writer(path) as writer:
        for start in range(0, len(vectors), size):
            block = vectors[start : start + size]
            writer.add([f"row:{start + i}" for i in range(len(block))], block)


def test_npy_in_blocks_equals_numpy_save(tmp_path: Path) -> None:
    write_in_blocks(tmp_path / "ours.npy", VECTORS)
    np.save(tmp_path / "theirs.npy", VECTORS)
    assert np.array_equal(np.load(tmp_path / "ours.npy", mmap_mode="r"), np.load(tmp_path / "theirs.npy"))


def test_parquet_in_blocks_keeps_ids_and_vectors(tmp_path: Path) -> None:
    write_in_blocks(tmp_path / "v.parquet", VECTORS)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 7)
    assert table["id"][2499].as_py() == "row:2499"
    assert np.array_equal(table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 7), VECTORS)


@pytest.mark.parametrize("name", ["v.npy", "v.parquet"])
def test_an_error_on_the_way_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"older result")

    def broken() -> None:
        with vector_writer(tmp_path / name) as writer:
            writer.add(["a"], VECTORS[:1])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"older result"


@pytest.mark.parametrize("name", ["v.csv", "nowhere/v.npy"])
def test_impossible_outputs_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name.rpartition("/")[0] or name):
        vector_writer(tmp_path / name)


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
