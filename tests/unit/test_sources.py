"""Documents: what is kept, mended, dropped and held out, for every kind of source."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.data.text.sources import Counts, DataConfig, documents, held_out_texts, is_held_out, source_key
from tests.hub import serving


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(source: Path | str, **settings: object) -> tuple[list[str], Counts]:
    counts = Counts()
    cfg = DataConfig.load({"source": str(source), **settings})
    return [document.text for document in documents(cfg, counts=counts)], counts


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_plain_string_is_a_source() -> None:
    class Config(BaseConfig):
        data: DataConfig = DataConfig()

    assert Config.load({"data": "corpus.jsonl"}).data == DataConfig(source="corpus.jsonl")
    assert Config.load({}, ["data=a.txt", "data.min_words=3"]).data == DataConfig(source="a.txt", min_words=3)


def test_txt_lines_unless_there_are_blank_lines(tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.txt", "\ufeffone sentence\r\ntwo sentences\r\n")
    assert read(lines)[0] == ["one sentence", "two sentences"]  # no byte order mark, no \r
    book = write(tmp_path / "book.txt", "It was dark,\nvery dark.\n\n\nThen came\nlight.")
    assert read(book)[0] == ["It was dark,\nvery dark.", "Then came\nlight."]
    assert read(book, txt="files")[0] == ["It was dark,\nvery dark.\n\n\nThen came\nlight."]
    assert read(book, txt="lines")[0] == ["It was dark,", "very dark.", "Then came"]
    gap = write(tmp_path / "gap.txt", "one sentence\n" * 50 + "\n" + "two sentences\n" * 50)
    assert len(read(gap)[0]) == 100  # one stray blank line does not glue a hundred documents together


def test_hostile_texts_are_counted_by_reason_and_never_lost(tmp_path: Path) -> None:
    long = "word " * 200_000
    rows = [
        "good text",
        "",
        "   ",
        "one",
        "😀 😀 😀",
        "a\0\0b c\0d",
        long,
        "half \ud83d pair",
        None,
        7,
        ["a", "b"],
        "日本語",
    ]
    texts, counts = read(write(tmp_path / "a.jsonl", jsonl(*({"text": row} for row in rows))))
    assert texts == ["good text", "ab cd", long.strip(), "half ? pair", "日本語"]
    assert counts == {
        "documents": 5,
        "empty": 3,
        "fewer than 2 words": 1,
        "no words": 1,
        "mended: NUL characters": 1,
        "mended: half a surrogate pair": 1,
        "text is a int": 1,
        "text is a list": 1,
    }
    assert counts.first["empty"] == "a.jsonl:2"


def test_lines_that_are_no_records_are_counted_with_the_first_position(tmp_path: Path) -> None:
    broken = (
        jsonl({"text": "a good one"}, {"body": "x y"}) + '{"text": "cut o\n[1, 2]\n' + "[" * 100_000 + "\n" + "9" * 5000
    )
    texts, counts = read(write(tmp_path / "a.jsonl", broken.encode() + b'\n{"text": "caf\xe9 noir"}'))
    assert texts == ["a good one", "caf\ufffd noir"]
    assert counts["line without column 'text'"] == 1
    assert counts["line is not JSON"] == 2
    assert counts.first["line is not JSON"] == "a.jsonl:3"
    assert counts["line is not a JSON object"] == 2  # a list, and a number that is too long for an int
    assert counts["mended: not UTF-8"] == 1


def test_parquet_with_labels_and_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    bad = pa.array([b"good text", b"caf\xe9 noir"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad, "topic": [3, None], "x": [1, 2]}), tmp_path / "a.parquet")
    counts = Counts()
    found = list(documents(DataConfig(source=str(tmp_path), label="topic"), counts=counts))
    assert [(d.text, d.label, d.id) for d in found] == [
        ("good text", "3", "a.parquet:0"),
        ("caf\ufffd noir", None, "a.parquet:1"),
    ]
    assert counts["document without a label"] == 1


def test_folder_and_glob_read_all_kinds_in_name_order(tmp_path: Path) -> None:
    write(tmp_path / "b.txt.gz", gzip.compress(b"second file"))
    write(tmp_path / "a.jsonl.gz", gzip.compress(jsonl({"text": "first file"}).encode()))
    pq.write_table(pa.table({"text": ["third file"]}), tmp_path / "c.parquet")
    write(tmp_path / "deep" / "d.txt", "fourth file")
    write(tmp_path / "e.pdf", "not text")
    write(tmp_path / ".hidden.txt", "not seen")
    texts, counts = read(tmp_path)
    assert texts == ["first file", "second file", "third file", "fourth file"]
    assert counts["left out: .pdf"] == 1
    assert read(tmp_path / "*.gz")[0] == ["first file", "second file"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, "matches no file"),
        ("empty.jsonl", b"", "no usable document: it is empty"),
        ("only.jsonl", jsonl({"text": "one"}), "1 x fewer than 2 words (first: only.jsonl:1)"),
        ("a.xyz", b"PK", "unknown extension; give one of .txt"),
        ("a.parquet", b"PAR1 but not really", "a.parquet is not a readable Parquet file"),
        ("a.txt.gz", b"not gzip", "a.txt.gz cannot be read"),
        ("cut.txt.gz", gzip.compress(b"two words\n" * 999, mtime=0)[:-20], "cut.txt.gz cannot be read"),
        (
            "b.jsonl",
            jsonl({"body": "a b", "title": "c"}),
            "has no column 'text'; set data.column to one of: body, title",
        ),
    ],
)
def test_what_nobody_can_read_is_one_line_with_the_fix(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_folder_and_missing_columns_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.txt"):
        read(tmp_path)
    pq.write_table(pa.table({"body": ["a b"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"set data\.column to one of: body"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"set data\.label to one of: body"):
        read(tmp_path, column="body", label="topic")
    write(tmp_path / "b.jsonl", jsonl({"text": "a b"}))
    with pytest.raises(UserError, match=r"data\.label=topic: no document"):
        read(tmp_path / "b.jsonl", label="topic")


def test_held_out_is_a_stable_share_and_splits_no_duplicates(tmp_path: Path) -> None:
    texts = [f"document number {i % 900}" + " " * (i % 2) for i in range(1800)]  # every text twice
    first = write(
        tmp_path / "a.jsonl", jsonl(*({"text": text.upper() if i % 3 else text} for i, text in enumerate(texts)))
    )
    cfg = DataConfig(source=str(first), eval_fraction=0.2)
    train = {d.text.lower() for d in documents(cfg, "train")}
    held = [d.text.lower() for d in documents(cfg, "eval")]
    assert not train & set(held)
    assert len(train | set(held)) == 900
    assert 0.15 < len(set(held)) / 900 < 0.25
    write(tmp_path / "0.jsonl", jsonl(*({"text": f"another {i}"} for i in range(500))))
    more = {d.text.lower() for d in documents(DataConfig(source=str(tmp_path), eval_fraction=0.2), "eval")}
    assert set(held) <= more  # adding files moves nothing
    assert [d.text.lower() for d in held_out_texts(cfg, 5)] == held[:5]
    assert is_held_out("Same  words", 0.5) == is_held_out("same\nWORDS", 0.5)


def test_nothing_held_out_names_the_knob(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.eval_fraction=0\.0001"):
        held_out_texts(DataConfig(source=str(write(tmp_path / "a.txt", "two words")), eval_fraction=0.0001), 3)


def test_documents_limits_both_splits_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "".join(f"document number {i}\n" for i in range(100)))
    cfg = DataConfig(source=str(path), documents=40, eval_fraction=0.3)
    assert len(list(documents(cfg))) == 40
    assert len(list(documents(cfg, "train"))) + len(list(documents(cfg, "eval"))) == 40


def test_reading_from_a_position_is_reading_on(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", jsonl({"text": "first line"}, {"text": "one"}, {"text": "third line"}) + "no JSON\n")
    write(tmp_path / "b.txt.gz", gzip.compress(b"fourth line\nfifth line\n"))
    write(tmp_path / "c.jsonl", b"")
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(300)]}), tmp_path / "d.parquet")
    for cfg in (DataConfig(source=str(tmp_path), eval_fraction=0.3), DataConfig(documents=50, eval_fraction=0.3)):
        whole = list(documents(cfg, "train"))
        for i in (0, 1, 2, 5, len(whole) - 1):
            assert list(documents(cfg, "train", start=whole[i].position)) == whole[i:]


def test_stories_have_factors_as_labels() -> None:
    found = list(documents(DataConfig(documents=20, label="topic")))
    assert [d.id for d in found] == [f"stories:{i}" for i in range(20)]
    assert all(d.label is not None and d.label.isdigit() for d in found)
    with pytest.raises(UserError, match=r"set data\.label to one of: .*topic"):
        list(documents(DataConfig(documents=20, label="tpic")))


def test_the_size_of_the_world_is_no_limit_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "".join(f"document number {i}\n" for i in range(60)))
    file = DataConfig(source=str(path), world_documents=20)
    assert len(list(documents(file))) == 60
    assert len(list(documents(file.model_copy(update={"documents": 10})))) == 10
    assert source_key(file) == source_key(DataConfig(source=str(path), world_documents=30))
    assert len(list(documents(DataConfig(world_documents=20)))) == 20
    assert len(list(documents(DataConfig(world_documents=20, documents=30)))) == 30
    assert source_key(DataConfig(world_documents=20)) != source_key(DataConfig(world_documents=30))


def test_key_changes_with_files_and_settings_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "two words")
    cfg = DataConfig(source=str(path))
    before = source_key(cfg)
    assert source_key(cfg) == before
    assert source_key(DataConfig(source=str(path), min_words=1)) != before
    write(path, "two words more")
    assert source_key(cfg) != before


READ_FROM_HUB = """
import json, sys
from openjepa.core.errors import UserError
from openjepa.data.text.sources import DataConfig, documents
out = []
for settings in json.loads(sys.argv[1]):
    try:
        out.append([[d.text, d.label, d.id] for d in documents(DataConfig.load(settings))])
    except UserError as error:
        out.append(str(error))
print(json.dumps(out))
"""


def ask_hub(hub: dict[str, str], home: Path, *settings: dict[str, object]) -> list:
    """`documents` of each settings in a process of its own."""
    env = {**hub, "HF_HOME": str(home), "PATH": "", "HF_HUB_ETAG_TIMEOUT": "2"}
    command = [sys.executable, "-c", READ_FROM_HUB, json.dumps(settings)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_hub_map_style_and_streaming_give_the_same_documents(tmp_path: Path) -> None:
    rows = [{"text": f"hub document {i}", "topic": i % 2} for i in range(30)]
    with serving("ours/texts", {"train.jsonl": jsonl(*rows).encode()}) as hub:
        downloaded, streamed, no_column, no_split, gone = ask_hub(
            hub,
            tmp_path,
            {"source": "ours/texts", "label": "topic"},
            {"source": "hub:ours/texts", "label": "topic", "streaming": True, "documents": 10},
            {"source": "ours/texts", "column": "body"},
            {"source": "ours/texts", "split": "validation"},
            {"source": "ours/nothing"},
        )
    assert downloaded == [[row["text"], str(row["topic"]), f"ours/texts:{i}"] for i, row in enumerate(rows)]
    assert streamed == downloaded[:10]
    assert no_column == "ours/texts has no column 'body'; set data.column to one of: text, topic"
    assert "validation" in no_split
    assert "ours/nothing" in gone
    assert "data.source=stories" in gone
