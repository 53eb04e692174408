"""Questions and answers: what is kept, cut, dropped and held out, for every kind of source."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.data.files.readers import Counts
from openjepa.data.questions.dataset import Question, QuestionConfig, final_answer, held_out_splits, questions
from openjepa.data.questions.numbers import plain_number, same_answer
from openjepa.data.text.sources import is_held_out
from openjepa.data.worlds.arithmetic import Arithmetic


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def row(number: int, answer: object = None) -> dict[str, object]:
    return {"question": f"How many is {number} and 1?", "answer": answer or f"So <<1+1=2>>.\n#### {number + 1}"}


def read(source: Path | str, **settings: object) -> tuple[list[Question], Counts]:
    """All usable questions of both splits."""
    cfg, counts = QuestionConfig.load({"source": str(source), **settings}), Counts()
    return questions(cfg, "train", counts) + questions(cfg, "eval"), counts


def test_a_plain_string_is_a_source() -> None:
    class Config(BaseConfig):
        data: QuestionConfig = QuestionConfig()

    assert Config.load({"data": "train.jsonl"}).data == QuestionConfig(source="train.jsonl")
    assert Config.load({}, ["data=train.jsonl"]).data == QuestionConfig(source="train.jsonl")


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("So 2+3 = <<2+3=5>>5.\n#### 5", "5"),
        ("#### 1,080", "1080"),
        ("He pays\n####  $1,234,567 ", "1234567"),
        ("#### -3", "-3"),
        ("a #### 1 #### 2", "2"),
        ("#### 18.00", "18"),
        ("#### 9{,}500.", "9500"),
        ("#### 5 dollars, 10 cents", "5 dollars, 10 cents"),
        ("#### 1,5", "1,5"),
        ("Paris, France", "Paris, France"),
        ("$5", "5"),
        ("lost ####", ""),
    ],
)
def test_final_answers(answer: str, final: str) -> None:
    assert final_answer(answer) == final


@pytest.mark.parametrize(
    ("number", "spellings"),
    [
        ("9500", ["9500", "9,500", "9{,}500", r"9\,500", r"9,\!500", r"9\;500", r"9\ 500", "9~500", "9 500"]),
        ("9500", ["9\u00a0500", "9\u202f500", "9\u2009500", "$9,500", r"\$9,500", "$9{,}500$", "$9500.00$", "+9500"]),
        ("18", ["18", "18.", "18.0", "18.00", "$18.00.", "$18$.", "$18.$", "18%", r"18\%", "18 %", "18%.", r"$\$18$"]),
        ("-3", ["-3", "\u22123", "-$3", "$-3", "\u2212$3.00", " -3 "]),
        ("0.5", ["0.5", ".5", "0.50", "$.50", ".500"]),
        ("0", ["0", "0.0", "-0", "\u22120.00"]),
        ("1234567.25", ["1,234,567.25", "1 234 567.250", "1{,}234{,}567.25", "1234567.25"]),
    ],
)
def test_one_number_has_many_spellings(number: str, spellings: list[str]) -> None:
    for one in spellings:
        assert plain_number(one) == number
        assert final_answer(f"So it is.\n#### {one}") == number
        assert all(same_answer(one, other) and same_answer(other, one) for other in spellings)


@pytest.mark.parametrize(
    "text",
    [
        *("1,5", "1,50", "1,23,456", "1,00,000", "1.234,56", "1.234.567", "1,234 567", "12,3456", "1234,567", "0,500"),
        *(
            "007",
            "5 5",
            "12 34",
            "1.2.3",
            "3..",
            "--5",
            "- 5",
            "\u20135",
            "5\u00b2",
            "1/2",
            "1e3",
            "5 dollars",
            "12:30",
        ),
        *("$", "%", "", "\u0661", "\uff11\uff18", "-", ".", "$$5$$"),
    ],
)
def test_what_may_be_another_number_stays_as_it_is(text: str) -> None:
    assert plain_number(text) is None
    assert final_answer(f"#### {text}") == text
    assert final_answer(text) == text


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("1,5", "15"), ("1,5", "1.5"), ("1.500", "1500"), ("9.500", "9,500"), ("5", "-5"), ("50%", "0.5")),
        *(("18", "180"), ("18.01", "18"), ("0.5", "5"), ("1,234", "1.234"), ("007", "7"), ("12 345", "12")),
        *(("3.0001", "3"), ("2", "two")),
    ],
)
def test_different_numbers_stay_different(first: str, second: str) -> None:
    assert not same_answer(first, second)
    assert not same_answer(second, first)


@given(st.integers(-(10**12), 10**12), st.integers(0, 6), st.sampled_from([",", "{,}", r"\,", " ", "\u202f", ""]))
def test_no_spelling_changes_the_number(units: int, origins: int, gap: str) -> None:
    """Against Python's own formatting: any number of `origins` decimals, with any separator of thousands."""
    value = Decimal(units).scaleb(-origins)
    read = plain_number(f"{value:,.{origins}f}".replace(",", gap))
    assert read is not None
    assert Decimal(read) == value
    assert read == plain_number(read)


def test_worked_answers_are_kept_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *map(row, range(100)))
    found = {question.id: question for question in read(file, answer="worked", eval_fraction=0.2)[0]}
    assert found["a.jsonl:8"] == Question("How many is 7 and 1?", "So <<1+1=2>>.\n#### 8", "a.jsonl:8")


def test_jsonl_parquet_and_folder_agree(tmp_path: Path) -> None:
    rows = [{"q": f"Who is number {n}?", "a": f"#### {n}", "other": n} for n in range(200)]
    (tmp_path / "qa").mkdir()
    write(tmp_path / "qa" / "one.jsonl", *rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "two.parquet")
    columns = {"question_column": "q", "answer_column": "a"}
    pairs = [[(q.question, q.answer) for q in read(tmp_path / name, **columns)[0]] for name in ("qa", "two.parquet")]
    assert pairs[0] == pairs[1]
    assert sorted(pairs[0]) == sorted((f"Who is number {n}?", str(n)) for n in range(200))


def test_bad_rows_are_counted_by_reason_with_the_first_origin(tmp_path: Path) -> None:
    bad = (
        {"answer": "#### 1"},
        {"question": "Why?"},
        {"question": "  ", "answer": "#### 1"},
        {"question": "Why?", "answer": ""},
        {"question": 5, "answer": "#### 1"},
        {"question": "Why?", "answer": ["1"]},
        {"question": "Why?", "answer": "because ####"},
        "{not json",
        "[1, 2]",
        {"question": "How\0many?", "answer": "#### 1"},
    )
    found, counts = read(write(tmp_path / "a.jsonl", *bad, *map(row, range(100))))
    assert len(found) == counts["questions"] == 101
    assert dict(counts) == {
        "line without column 'question'": 1,
        "answer is missing or empty": 2,
        "question is missing or empty": 1,
        "question is a int": 1,
        "answer is a list": 1,
        "answer has nothing after ####": 1,
        "line is not JSON": 1,
        "line is not a JSON object": 1,
        "mended: NUL characters": 1,
        "questions": 101,
    }
    assert counts.first["answer is missing or empty"] == "a.jsonl:2"
    assert counts.first["question is a int"] == "a.jsonl:5"


def test_files_split_by_the_words_of_the_question_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *map(row, range(400)))
    cfg = QuestionConfig(source=str(file), eval_fraction=0.25)
    train, held_out = questions(cfg, "train"), questions(cfg, "eval")
    assert len(train) + len(held_out) == 400
    assert 60 < len(held_out) < 140
    assert all(is_held_out(question.question, 0.25) for question in held_out)
    assert not any(is_held_out(question.question, 0.25) for question in train)
    assert held_out_splits(cfg) == {"test": held_out}

    loud = write(tmp_path / "b.jsonl", *({"question": q.question.upper(), "answer": "other"} for q in held_out))
    assert len(questions(QuestionConfig(source=str(loud), eval_fraction=0.25), "eval")) == len(held_out)


def test_documents_limits_both_splits_together(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "{broken", *map(row, range(400)))
    found, counts = read(file, documents=100)
    assert counts["questions"] == len(found) == 100
    assert {int(question.id.split(":")[1]) for question in found} == set(range(2, 102))


def test_the_world_is_the_default_and_its_splits_are_its_own() -> None:
    cfg = QuestionConfig(documents=1000, eval_fraction=0.1)
    counts = Counts()
    train = questions(cfg, "train", counts)
    held_out = held_out_splits(cfg)
    assert len(train) == counts["questions"] == 900
    assert {split: len(rows) for split, rows in held_out.items()} == {"test": 100, "templates": 100, "numbers": 100}
    assert held_out["test"] == questions(cfg, "eval")
    assert not {q.question for q in train} & {q.question for rows in held_out.values() for q in rows}
    problem = Arithmetic("templates", 100)[5]
    assert held_out["templates"][5] == Question(problem.question, str(problem.value), "arithmetic:templates:5")
    worked = questions(cfg.model_copy(update={"answer": "worked"}), "eval")
    assert [final_answer(question.answer) for question in worked] == [question.answer for question in held_out["test"]]


def test_the_size_of_the_world_is_no_limit_of_other_sources(tmp_path: Path) -> None:
    assert len(questions(QuestionConfig(world_documents=200, eval_fraction=0.1))) == 180
    assert len(questions(QuestionConfig(world_documents=200, documents=100, eval_fraction=0.1))) == 90
    found, _ = read(write(tmp_path / "a.jsonl", *map(row, range(400))), world_documents=200)
    assert len(found) == 400


def test_rows_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name: str, config: str | None, split: str, streaming: bool) -> list[dict]:
        asked.append((name, config, split, streaming))
        return [row(number) for number in range(100)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found, _ = read("openai/gsm8k:main", split="test")
    assert len(found) == 100
    assert set(asked) == {("openai/gsm8k", "main", "test", False)}
    assert found[0].id == "openai/gsm8k:0"
    with pytest.raises(UserError, match=r"no column 'solution'; set data.answer_column to one of: answer, question"):
        read("openai/gsm8k:main", answer_column="solution")


def test_unusable_sources_are_user_errors_that_name_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing.jsonl matches no file.*data.source=arithmetic"):
        read(tmp_path / "missing.jsonl")
    (tmp_path / "a.txt").write_text("a text")
    with pytest.raises(UserError, match=r"a.txt has only .txt files; questions and answers need columns"):
        read(tmp_path / "a.txt")
    file = write(tmp_path / "b.jsonl", row(1), row(2))
    with pytest.raises(UserError, match=r"b.jsonl has no column 'ask'; set data.question_column to one of: answer"):
        read(file, question_column="ask")
    with pytest.raises(UserError, match=r"no usable question .*data.answer_column.*2 x answer is missing .*b.jsonl:1"):
        read(file, answer_column="solution")
    with pytest.raises(UserError, match=r"eval_fraction=0.001 holds out none of 2 questions; give at least 20"):
        read(file, eval_fraction=0.001)
    with pytest.raises(UserError, match=r"eval_fraction=0.999 holds out every one of 2 questions; lower it"):
        read(file, eval_fraction=0.999)
    pq.write_table(pa.table({"question": ["Why?"]}), tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"c.parquet has no column 'answer'; set data.answer_column to one"):
        read(tmp_path / "c.parquet")


def test_texts_beside_tables_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *map(row, range(100)))
    (tmp_path / "notes.txt").write_text("a text")
    found, counts = read(tmp_path)
    assert len(found) == 100
    assert counts["file without columns"] == 1


def test_numbers_that_are_rewritten_are_counted(tmp_path: Path) -> None:
    rows = [row(n, f"#### {n},000.00") for n in range(1, 60)] + [row(n) for n in range(60, 100)]
    found, counts = read(write(tmp_path / "a.jsonl", *rows))
    assert counts["mended: answer in plain digits"] == 59
    assert {question.answer for question in found if question.question == "How many is 7 and 1?"} == {"7000"}
    assert "mended: answer in plain digits" not in read(tmp_path / "a.jsonl", answer="worked")[1]
