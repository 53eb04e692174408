"""A BEIR folder is read as BEIR reads it; what nobody could use is counted, what is broken is one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openjepa.core.errors import UserError
from openjepa.data.files.readers import Counts
from openjepa.tasks.beir import read_beir

CORPUS = [
    {"_id": "d1", "title": "Bread", "text": "of flour and water"},
    {"_id": "d2", "title": "", "text": "sails in the wind"},
    {"_id": "q1", "text": "what is bread made of"},
]
QUERIES = [{"_id": "q1", "text": "what is bread made of"}, {"_id": "q2", "text": "wind"}, {"_id": "q3", "text": "?"}]
QRELS = ["query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td2\t0", "q2\td2\t1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "corpus.jsonl", [json.dumps(row) for row in CORPUS])
    write(tmp_path / "queries.jsonl", [json.dumps(row) for row in QUERIES])
    write(tmp_path / "qrels" / "test.tsv", QRELS)
    return tmp_path


def write(file: Path, lines: list[str]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def read(folder: Path, limit: int = 0) -> tuple:
    counts = Counts()
    return read_beir(folder, "find", "test", limit, counts), counts


def test_judged_queries_are_asked_over_the_whole_corpus(folder: Path) -> None:
    task, counts = read(folder)
    assert task.queries == ["what is bread made of", "wind"]  # nobody judged q3
    assert task.documents == ["Bread of flour and water", "sails in the wind", "what is bread made of"]
    assert task.gains == [{0: 2.0}, {1: 1.0}]
    assert task.left_out == {0: 2}  # a document of the query's own id
    assert not counts


def test_what_cannot_be_used_is_counted(folder: Path) -> None:
    more = ["q1\td1\t1", "q1\td9\t1", "q9\td1\t1", "q3\td1\t0", "q3\td2\t-1"]
    write(folder / "qrels" / "test.tsv", [*QRELS, *more])
    rows = [*CORPUS, CORPUS[0] | {"text": "twice"}, {"_id": "d3", "title": " ", "text": ""}]
    write(folder / "corpus.jsonl", [json.dumps(row) for row in rows])
    task, counts = read(folder)
    assert task.gains == [{0: 2.0}, {1: 1.0}]
    assert task.documents[0] == "Bread of flour and water"
    assert dict(counts) == {
        "pair judged twice": 1,
        "judged document that is not in corpus.jsonl": 1,
        "judged query that is not in queries.jsonl": 1,
        "judged query without an answer": 1,
        "id given twice in corpus.jsonl": 1,
        "row without a text in corpus.jsonl": 1,
    }


def test_a_limit_takes_the_same_queries_whatever_their_order(folder: Path) -> None:
    (one,) = read(folder, limit=1)[0].queries
    write(folder / "qrels" / "test.tsv", [QRELS[0], *QRELS[:0:-1]])
    assert read(folder, limit=1)[0].queries == [one]


@pytest.mark.parametrize(
    ("file", "lines", "hint"),
    [
        ("qrels/test.tsv", None, r"there is no .*test.tsv; a BEIR folder holds"),
        ("corpus.jsonl", None, r"there is no .*corpus.jsonl"),
        ("queries.jsonl", ['{"_id": "q1"'], r"queries.jsonl:1 is no JSON object"),
        ("corpus.jsonl", ['{"_id": "d1", "text": "a"}', '{"text": "b"}'], r"corpus.jsonl:2 is no JSON object with _id"),
        ("qrels/test.tsv", [*QRELS, "q1 0 d2 1"], r"test.tsv:5 must be query-id, corpus-id and a score"),
        ("qrels/test.tsv", QRELS[:1], r"no query of qrels/test.tsv has an answer"),
    ],
)
def test_a_broken_folder_is_one_clear_line(folder: Path, file: str, lines: list[str] | None, hint: str) -> None:
    (folder / file).unlink()
    if lines is not None:
        write(folder / file, lines)
    with pytest.raises(UserError, match=hint):
        read(folder)
