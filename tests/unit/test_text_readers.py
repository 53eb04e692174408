"""Files that people have: every kind gives the same records, in bounded memory, and nothing is lost without a count."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from openjepa.core.errors import UserError
from openjepa.data.files import json_values
from openjepa.data.files.discovery import find_files
from openjepa.data.files.readers import read_files
from openjepa.data.files.records import Counts, ReaderOptions, counts_line
from openjepa.data.files.texts import html_text, markdown_text
from openjepa.data.text.sources import DataConfig, documents, source_key
from openjepa.encoding.rows import count_rows, text_rows

T = TypeVar("T")
ROWS = [
    {"text": "charged twice, please help\nmany thanks", "topic": "billing"},
    {"text": 'cannot log in, "reset" fails', "topic": "login"},
    {"text": "déjà vu 日本語", "topic": "other"},
]


def read(source: Path | str, **settings: object) -> tuple[list[tuple[str, str | None]], Counts]:
    counts = Counts()
    cfg = DataConfig.load({"source": str(source), **settings})
    return [(document.text, document.label) for document in documents(cfg, counts=counts)], counts


def texts(source: Path | str, **settings: object) -> list[str]:
    return [text for text, _ in read(source, **settings)[0]]


def as_csv(delimiter: str, rows: list[dict[str, str]] = ROWS) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["topic", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_lines(rows: list[dict[str, str]] = ROWS) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


CONTENTS: dict[str, bytes] = {
    "a.csv": as_csv(","),
    "semicolon.csv": as_csv(";"),
    "bom.csv": b"\xef\xbb\xbf" + as_csv(","),
    "utf16.csv": as_csv(",").decode().encode("utf-16"),
    "a.tsv": as_csv("\t"),
    "a.jsonl": as_lines(),
    "a.ndjson": as_lines(),
    "a.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2).encode(),
    "array.jsonl": json.dumps(ROWS).encode(),
    "pretty.jsonl": b"\xef\xbb\xbf\n" + json.dumps(ROWS, indent=2).encode(),
    "lines.json": as_lines(),
    "objects.jsonl": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
}


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", CONTENTS)
def test_every_form_of_a_table_gives_the_same_records(tmp_path: Path, name: str, compression: str) -> None:
    content = CONTENTS[name]
    if compression == ".gz":
        content = gzip.compress(content)
    if compression == ".zst":
        content = pa.Codec("zstd").compress(content, asbytes=True)
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(CONTENTS[name])
        content = sink.getvalue().to_pybytes()
    (tmp_path / (name + compression)).write_bytes(content)
    found, counts = read(tmp_path / (name + compression), label="topic")
    assert found == [(row["text"], row["topic"]) for row in ROWS]
    assert counts == {"documents": 3}


def test_arrow_feather_and_excel_give_the_same_records(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "a.parquet")
    pa.feather.write_feather(table, tmp_path / "a.feather")
    for name, new in (("file.arrow", pa.ipc.new_file), ("stream.arrow", pa.ipc.new_stream)):
        with pa.OSFile(str(tmp_path / name), "wb") as file, new(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["topic", None, "text"])
    for row in ROWS:
        book.active.append([row["topic"], None, row["text"]])
    book.create_sheet("notes").append(["nothing here"])
    book.save(tmp_path / "a.xlsx")
    for name in ("a.parquet", "a.feather", "file.arrow", "stream.arrow", "a.xlsx"):
        found, counts = read(tmp_path / name, label="topic")
        assert found == [(row["text"], row["topic"]) for row in ROWS], name
        assert counts["sheet without column 'text'"] == (name == "a.xlsx")
        with pytest.raises(UserError, match=r"has no column 'body'; set data\.column to one of: .*topic"):
            read(tmp_path / name, column="body")


def test_arrow_files_of_strangers_are_checked(tmp_path: Path) -> None:
    bad = pa.array([b"good text", b"caf\xe9 noir"]).cast(pa.binary()).view(pa.string())
    pa.feather.write_feather(pa.table({"text": bad}), tmp_path / "a.feather")
    found, counts = read(tmp_path / "a.feather")
    assert [text for text, _ in found] == ["good text", "caf\ufffd noir"]
    assert counts["mended: not UTF-8"] == 1
    (tmp_path / "b.arrow").write_bytes(b"ARROW1 and nothing else")
    with pytest.raises(UserError, match=r"b\.arrow is not a readable Arrow file"):
        read(tmp_path / "b.arrow")
    (tmp_path / "c.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(UserError, match=r"c\.xlsx is not a readable \.xlsx file"):
        read(tmp_path / "c.xlsx")


def test_folders_of_save_to_disk_by_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(str(tmp_path / "two"))
    expected = [row["text"] for row in ROWS]
    found, counts = read(tmp_path / "one")
    assert ([text for text, _ in found], counts) == (expected, {"documents": 3})
    assert texts(tmp_path / "two") == expected
    assert texts(tmp_path / "two", split="test") == expected[1:2]
    with pytest.raises(UserError, match=r"two has no split 'dev'; set data\.split to one of: train, test"):
        read(tmp_path / "two", split="dev")
    assert source_key(DataConfig(source=str(tmp_path / "two"))) != source_key(
        DataConfig(source=str(tmp_path / "two"), split="test")
    )
    assert [row.text for row in text_rows(str(tmp_path / "one"))] == expected


def test_markdown_and_html_are_one_document_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "---\ntags: [x]\n---\n# Late *trains*\n\nA [note](http://x.y) on\nsnow.\n\n- one\n- two\n"
    )
    (tmp_path / "b.html").write_text(
        "<html><head><title>T</title><style>p{}</style></head><body><h1>Late</h1><!-- no --><p>A <b>bo</b>ld&nbsp;word."
        "<br>next</p><script>x()</script><ul><li>one<li>two</ul><pre>a  b\n  c</pre></body></html>"
    )
    (tmp_path / "c.htm").write_bytes('<meta charset="latin-1"><p>un café noir'.encode("latin-1"))
    (tmp_path / "d.html").write_bytes("<p>un café noir".encode("latin-1"))
    found, counts = read(tmp_path)
    assert [text for text, _ in found] == [
        "Late trains\n\nA note on snow.\n\none\ntwo",
        "Late\n\nA bold word.\nnext\n\none\ntwo\n\na  b\n  c",
        "un café noir",
        "un café noir",
    ]
    assert counts["mended: not UTF-8"] == 1  # d.html says nothing of its encoding
    assert counts.first["mended: not UTF-8"] == "d.html"


def test_markdown_keeps_what_only_looks_like_front_matter() -> None:
    assert markdown_text("---\n\nA rule and text.\n\n---\n\nmore") == "A rule and text.\n\nmore"
    assert markdown_text("a | b\n--- | ---\n1 | 2\n").split() == ["a", "b", "1", "2"]


def test_deep_and_wide_html_takes_no_time() -> None:
    assert html_text("<div>" * 20_000 + "deep text") == "deep text"
    assert html_text("<div> </div>" * 20_000 + "wide text") == "wide text"


def test_quotes_of_a_tsv_are_literal_where_they_enclose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('topic\ttext\n1\t"hello," she said\n2\t"another text\n3\ta third text\n')
    assert texts(path) == ['"hello," she said', '"another text', "a third text"]
    path.write_text('topic\ttext\n1\t"one text\n2\ttwo texts\n3\tthree texts"\n')
    assert texts(path) == ['"one text', "two texts", 'three texts"']
    path.write_text('topic\ttext\n1\t"quoted\ttab"\n2\t"two\nlines"\n')
    assert texts(path) == ["quoted\ttab", "two\nlines"]


def test_ragged_rows_and_open_quotes_are_counted_and_cost_no_other_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'text,topic\ngood text,1\n\nsplit, text,2\nshort row\n"open quote,3\nnext row,4\nlast row,5\ncaf\xe9 noir,6'
    )
    found, counts = read(path, label="topic")
    assert found == [
        ("good text", "1"),
        ("short row", None),
        ("next row", "4"),
        ("last row", "5"),
        ("caf\ufffd noir", "6"),
    ]
    assert counts.first == {
        "documents": "a.csv:2",
        "row with more fields than the header": "a.csv:4",
        "mended: row with fewer fields than the header": "a.csv:5",
        "document without a label": "a.csv:5",
        "row with a quote that is not closed": "a.csv:6",
        "mended: not UTF-8": "a.csv:9",
    }
    path.write_text("text,topic\nold\rmac line,1\nnext row,2\n")
    found, counts = read(path)
    assert [text for text, _ in found] == ["next row"]
    assert counts["row that is not readable"] == 1


def test_a_csv_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;body\n1;a text\n")
    with pytest.raises(UserError, match=r"a\.csv has no column 'text'; set data\.column to one of: body, id"):
        read(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"a\.csv has no column 'topic'; set data\.label to one of: body, id"):
        read(tmp_path / "a.csv", column="body", label="topic")


def test_bad_values_of_a_json_array_cost_no_other(tmp_path: Path) -> None:
    content = '[{"text": "good \\u00e9 text"}, {"text": "broken" oops}, [1], '
    content += '{"id": ' + "9" * 5000 + ', "text": "long number"}, ' + "[" * 5000 + "]" * 5000 + ","
    content += '{"text": 7}, {"body": "x"}, "a bare text", {"text": "two brackets ]}{[ \\" , \\\\"}, {"text": "cut o'
    (tmp_path / "a.json").write_text(content)
    found, counts = read(tmp_path / "a.json")
    assert [text for text, _ in found] == ["good é text", "long number", "a bare text", 'two brackets ]}{[ " , \\']
    assert counts == {
        "documents": 4,
        "value is not JSON": 3,
        "value is not a JSON object": 1,
        "text is a int": 1,
        "value without column 'text'": 1,
        "JSON array without an end": 1,
    }
    assert counts.first["value is not JSON"] == "a.json:1"


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
def test_where_chunks_of_json_end_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"a": 'x"\\', "b": ["]", {"c": "}\\"}]}, [], "tex,t", 3, {"é": "\\\\"}, None]
    monkeypatch.setattr(json_values, "CHUNK", chunk)
    for text in (json.dumps(rows), json.dumps(rows, indent=1, ensure_ascii=False), "\n" + json.dumps(rows) + "\n"):
        assert [json.loads(raw or b"") for raw in json_values.values(io.BytesIO(text.encode()), 1000)] == rows
    objects = [row for row in rows if isinstance(row, dict)] * 2
    text = "\n".join(json.dumps(row, indent=1) for row in objects)
    assert [json.loads(raw or b"") for raw in json_values.values(io.BytesIO(text.encode()), 1000)] == objects
    long = json.dumps(["a", "b" * 100, {"c": "d" * 100}, "e"]).encode()
    assert list(json_values.values(io.BytesIO(long), 50)) == [b'"a"', None, None, b'"e"']


def test_lines_of_arrays_are_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[{"text": "not a row"}]\n{"text": "a row"}\n')
    found, counts = read(tmp_path / "a.jsonl")
    assert [text for text, _ in found] == ["a row"]
    assert counts["line is not a JSON object"] == 1


def test_dotted_columns_lead_into_objects_and_structs(tmp_path: Path) -> None:
    rows = [{"meta": {"body": "inner text", "tag": {"name": 3}}, "x": 1}, {"meta": None, "x": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    pa.feather.write_feather(pa.Table.from_pylist(rows), tmp_path / "a.feather")
    for name in ("a.jsonl", "a.parquet", "a.feather"):
        found, counts = read(tmp_path / name, column="meta.body", label="meta.tag.name")
        assert (found, counts["empty"]) == ([("inner text", "3")], 1), name
        with pytest.raises(UserError, match=r"to one of: meta, meta\.body, meta\.tag, x"):
            read(tmp_path / name, column="meta.bdy")
    literal = [{"meta.body": "outer text", "meta": {"body": "inner text"}}]
    (tmp_path / "b.jsonl").write_text(json.dumps(literal[0]))
    pq.write_table(pa.Table.from_pylist(literal), tmp_path / "b.parquet")
    assert texts(tmp_path / "b.jsonl", column="meta.body") == ["outer text"]
    assert texts(tmp_path / "b.parquet", column="meta.body") == ["outer text"]


def test_chat_messages_are_joined_as_paragraphs(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "in parts"}, {"type": "image_url", "image_url": "x"}]
    chats = [
        [{"role": "user", "content": "a question"}, {"role": "assistant", "content": "an answer"}],
        [{"role": "user", "content": parts}, {"role": "assistant", "content": None}],
        [{"role": "user", "content": 3}],
        ["just", "a list"],
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    found, counts = read(tmp_path / "a.jsonl", column="messages")
    assert [text for text, _ in found] == ["a question\n\nan answer", "in parts"]
    assert counts["text is a list"] == 2
    pq.write_table(pa.table({"messages": chats[:1]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", column="messages") == ["a question\n\nan answer"]


def test_a_mixed_folder_is_read_and_the_rest_counted_by_extension(tmp_path: Path) -> None:
    for name in ("x.pdf", "y.PDF", "z.pdf", "deep/s.py", "LICENSE", ".hidden/h.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not a text")
    (tmp_path / "deep" / "a.md").write_text("# A note")
    (tmp_path / "b.txt").write_text("one line\nanother line")
    (tmp_path / "settings.json").write_text('{"name": "x"}')
    found, counts = read(tmp_path)
    assert [text for text, _ in found] == ["one line", "another line", "A note"]
    assert counts_line(counts) == (
        "3 documents, 1 file without column 'text'; left out: 3 x .pdf, 1 x file without an extension, 1 x .py"
    )
    assert counts.first["file without column 'text'"] == "settings.json, which has name"
    ids = [document.id for document in documents(DataConfig(source=str(tmp_path)))]
    assert ids == ["b.txt:1", "b.txt:2", "deep/a.md"]
    with pytest.raises(UserError, match=r"settings\.json has no column 'text'; set data\.column to one of: name"):
        read(tmp_path / "settings.json")


def test_a_folder_without_a_readable_file_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf", "c.py"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"holds no \.txt, .*\.xlsx file; it holds 2 x \.pdf, 1 x \.py"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"it holds 2 x \.pdf, 1 x \.py"):
        list(text_rows(str(tmp_path)))


class Bomb:
    """Its pickle makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("a.pkl", "opening it can run code; save the table as .parquet or .jsonl"),
        ("a.pdf", "pdftotext"),
        ("a.docx", "pandoc"),
        ("a.zip", "unpack it"),
        ("a.sqlite", "export the table as .csv"),
        ("a.parquet.gz", "decompress it"),
        ("a.txt.bz2", "decompress it"),
        ("a.xyz", "unknown extension; give one of .txt, .jsonl"),
    ],
)
def test_other_formats_are_refused_with_a_way_on(tmp_path: Path, name: str, way: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    for ask in (read, lambda source: list(text_rows(str(source)))):
        with pytest.raises(UserError) as caught:
            ask(tmp_path / name)
        assert way in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def with_peak_mb(ask: Callable[[], T]) -> tuple[T, float]:
    """What `ask` gives, and the most memory in MiB that Python objects took meanwhile."""
    tracemalloc.start()
    try:
        return ask(), tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_a_line_beyond_the_limit_is_one_count_and_little_memory(tmp_path: Path) -> None:
    long = "word " * (12 * 2**20 // 5)
    (tmp_path / "a.txt").write_text(f"first line\n{long}\nlast line\n")
    (tmp_path / "a.jsonl").write_text(f'{{"text": "first line"}}\n{{"text": "{long}"}}\n{{"text": "last line"}}\n')
    (tmp_path / "a.json").write_text(f'[{{"text": "first line"}}, {{"text": "{long}"}}, {{"text": "last line"}}]')
    (tmp_path / "a.csv").write_text(f'text,topic\nfirst line,1\n"{long}\n",2\nlast line,3\n')
    (tmp_path / "b.csv").write_text('text,topic\nfirst line,1\n"open\n' + "more,4\n" * 300_000 + "last line,3\n")
    (tmp_path / "nul.txt.gz").write_bytes(gzip.compress(b"first line\n" + bytes(12 * 2**20) + b"\nlast line\n"))
    for name, what in (("a.txt", "line"), ("a.jsonl", "line"), ("a.json", "JSON value"), ("a.csv", "line")):
        counts = Counts()
        stream = documents(DataConfig(source=str(tmp_path / name), max_line_mb=1), counts=counts)
        found, peak = with_peak_mb(lambda stream=stream: [document.text for document in stream])
        assert peak < 8, name
        assert found == ["first line", "last line"], name
        assert counts[f"{what} longer than data.max_line_mb=1"] == 1
    assert texts(tmp_path / "nul.txt.gz", max_line_mb=1) == ["first line", "last line"]
    found_rows, counts = read(tmp_path / "b.csv", max_line_mb=1, min_words=1)
    assert (found_rows[0][0], found_rows[-1][0], len(found_rows)) == ("first line", "last line", 300_002)
    assert counts["row with a quote that is not closed"] == 1
    assert texts(tmp_path / "a.txt", txt="paragraphs", max_line_mb=1) == ["first line\nlast line"]
    with pytest.raises(UserError, match=r"1 x file longer than data\.max_line_mb=1"):
        read(tmp_path / "a.txt", txt="files", max_line_mb=1)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"row {i} " + "of many words " * 20, "topic": "x"} for i in range(20_000)]  # 6 MB
    content = {
        "a.csv": as_csv(",", rows),
        "a.json": json.dumps(rows).encode(),
        "a.jsonl.gz": gzip.compress(as_lines(rows)),
    }
    (tmp_path / name).write_bytes(content[name])
    del rows, content
    records = read_files([tmp_path / name], ReaderOptions(), Counts())
    count, peak = with_peak_mb(lambda: sum(1 for _ in records))
    assert (count, peak < 5) == (20_000, True)


HOSTILE = [
    {"text": "good text"},
    {"text": ""},
    {"text": None},
    {"text": "half \ud83d pair"},
    {"text": "a\0b c"},
    {"text": 7},
    {"body": "x"},
    [1],
]


def test_embedding_reads_as_training_does_with_a_row_a_record(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in HOSTILE]
    broken = "\n".join(lines).encode() + b'\n{"text": "cut o\n\n{"text": "caf\xe9 noir", "id": ' + b"9" * 5000 + b"}\n"
    (tmp_path / "a.jsonl").write_bytes(broken)
    (tmp_path / "array.jsonl").write_text(f"[{','.join(lines)}]")
    bad = pa.array([b"good text", b"caf\xe9 noir", None]).cast(pa.binary())
    pq.write_table(pa.table({"text": bad}), tmp_path / "bytes.parquet")
    pq.write_table(pa.table({"text": bad.view(pa.string())}), tmp_path / "bad.parquet")
    (tmp_path / "latin.txt").write_bytes("café noir\nplain text\n".encode("latin-1"))
    for name, rows in (("a.jsonl", 10), ("array.jsonl", 8), ("bytes.parquet", 3), ("bad.parquet", 3), ("latin.txt", 2)):
        counts = Counts()
        embedded = list(text_rows(str(tmp_path / name), counts=counts))
        trained, train_counts = read(tmp_path / name, min_words=1)
        assert len(embedded) == rows, name
        assert [row.text for row in embedded if row.text] == [text for text, _ in trained]
        assert counts.pop("texts") == train_counts.pop("documents")
        assert counts == train_counts
    assert [row.text for row in text_rows(str(tmp_path / "a.jsonl"))] == [
        *("good text", None, None, "half ? pair", "ab c", None, None, None, None, "caf\ufffd noir")
    ]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match=r"broken\.parquet is not a readable Parquet file"):
        list(text_rows(str(tmp_path / "broken.parquet")))


def test_embedding_of_a_folder_counts_rows_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A note")
    (tmp_path / "b.txt").write_text("one\n\ntwo")
    (tmp_path / "c.jsonl").write_bytes(as_lines())
    (tmp_path / "d.pdf").write_bytes(b"x")
    counts = Counts()
    rows = list(text_rows(str(tmp_path), counts=counts))
    assert [row.id for row in rows] == ["a.md", "b.txt:1", "b.txt:2", "b.txt:3", "c.jsonl:1", "c.jsonl:2", "c.jsonl:3"]
    assert count_rows(str(tmp_path)) == len(rows) == 7
    assert counts_line(counts) == "6 texts, 1 empty; left out: 1 x .pdf"
    assert [row.text for row in text_rows(str(tmp_path / "b.txt"), txt="files")] == ["one\n\ntwo"]


def test_reading_on_from_any_record_of_any_kind_of_file(tmp_path: Path) -> None:
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    pa.feather.write_feather(pa.Table.from_pylist(ROWS), tmp_path / "z.feather")
    (tmp_path / "note.md").write_text("# A note")
    cfg = DataConfig(source=str(tmp_path), streaming=True)
    whole = list(documents(cfg))
    assert len(whole) == 3 * len(CONTENTS) + 4
    for number, document in enumerate(whole):
        assert list(documents(cfg, start=document.position)) == whole[number:]


def test_the_whole_file_system_is_no_folder_of_data(tmp_path: Path) -> None:
    for source in ("/", f"{tmp_path}{'/..' * len(tmp_path.parts)}"):
        with pytest.raises(UserError, match="is the whole file system; name the folder in it"):
            find_files(source, Counts())
