"""Texts given as Python objects become a file: every type gives the same records, once, and equal objects one file."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import openjepa
from openjepa.core.errors import UserError
from openjepa.data.files.objects import Wanted, write_objects
from openjepa.data.objects import STAND_IN, with_objects, without_objects
from openjepa.data.questions.dataset import QuestionConfig, questions
from openjepa.data.text.sources import Counts, DataConfig, documents
from openjepa.recipes import i_jepa, nano_jepa, t_jepa
from tests.tiny import TINY

pd = pytest.importorskip("pandas")
TEXTS = ["the first text", "ein zweiter Text é", "a third one"]
ROWS = [{"text": text, "topic": number, "other": [1]} for number, text in enumerate(TEXTS)]
WANTED = [Wanted("text", "data.column"), Wanted("topic", "data.label", is_text=False)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENJEPA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def read(objects: Any, wanted: list[Wanted] = WANTED, **settings: Any) -> tuple[list[tuple[str, str | None]], Counts]:
    counts = Counts()
    label = wanted[1].column if len(wanted) > 1 else None
    path = write_objects(objects, wanted)
    cfg = DataConfig(source=str(path), column=wanted[0].column, label=label, **settings)
    return [(document.text, document.label) for document in documents(cfg, counts=counts)], counts


def test_every_type_with_columns_gives_the_same_records(own_cache: Path) -> None:
    polars = pytest.importorskip("polars")
    datasets = pytest.importorskip("datasets")
    expected = [(text, str(number)) for number, text in enumerate(TEXTS)]
    data_set = datasets.Dataset.from_list(ROWS)
    given = {
        "list": ROWS,
        "tuple": tuple(ROWS),
        "pandas": pd.DataFrame(ROWS, index=[10, 11, 12]),
        "polars": polars.DataFrame(ROWS),
        "dataset": data_set,
        "iterable": data_set.to_iterable_dataset(),
        "dict": datasets.DatasetDict({"test": datasets.Dataset.from_list([]), "train": data_set}),
        "arrow": pa.Table.from_pylist(ROWS),
        "function": lambda: iter(ROWS),
    }
    for kind, objects in given.items():
        assert read(objects) == (expected, {"documents": 3}), kind
    assert len(list(own_cache.iterdir())) == 1  # equal content, one file


def test_every_type_without_columns_gives_its_texts_in_order() -> None:
    polars = pytest.importorskip("polars")

    def generate() -> Iterator[str]:
        yield from TEXTS

    shuffled = pd.Series(TEXTS, index=[2, 0, 1], name="body")
    for objects in (TEXTS, shuffled, polars.Series(TEXTS), np.array(TEXTS), np.array(TEXTS, dtype=object), generate):
        assert [text for text, _ in read(objects, WANTED[:1])[0]] == TEXTS
        assert [text for text, _ in read(objects, [Wanted("body", "data.column")])[0]] == TEXTS


def test_what_is_missing_counts_as_empty_and_what_is_no_text_by_its_type() -> None:
    missing = [None, float("nan"), pd.NA, pd.NaT, np.float64("nan")]
    values = [*TEXTS, *missing, 7, np.int64(8), b"caf\xc3\xa9 noir", b"caf\xe9 x y"]
    found, counts = read(values, WANTED[:1])
    assert [text for text, _ in found] == [*TEXTS, "café noir", "caf? x y"]
    assert (counts["empty"], counts["text is a int"], counts["mended: half a surrogate pair"]) == (5, 2, 1)
    frame = pd.DataFrame({"text": [TEXTS[0], None, TEXTS[1]], "topic": [1, 2, None]})
    found, counts = read(frame)
    assert found == [(TEXTS[0], "1.0"), (TEXTS[1], None)]
    assert (counts["empty"], counts["document without a label"]) == (1, 1)
    dated = [{"text": "a text", "topic": datetime.date(2020, 1, 2)}]
    assert read(dated)[0] == [("a text", "2020-01-02")]
    with pytest.raises(UserError, match="row 1 holds a date in 'text', not a text"):
        read(["a text", datetime.date(2020, 1, 2)], WANTED[:1])


def test_dotted_columns_and_chats() -> None:
    chat = [{"role": "user", "content": "hello there"}]
    rows = [{"meta": {"body": "inner text", "n": np.int64(3)}, "messages": chat}]
    for objects in (rows, pd.DataFrame(rows), pa.Table.from_pylist([{"meta": {"body": "inner text", "n": 3}}])):
        assert read(objects, [Wanted("meta.body", ""), Wanted("meta.n", "", False)])[0] == [("inner text", "3")]
    assert read(pd.DataFrame(rows), [Wanted("messages", "")])[0] == [("hello there", None)]


def test_what_is_no_data_is_one_line_with_the_way_on() -> None:
    for objects, message in (
        ((text for text in TEXTS), r"is a generator, which can be read only once; give the function that makes it"),
        (7, r"cannot be a int; give a path or a pattern, a list of texts"),
        (None, r"cannot be a NoneType"),
        ({"a", "b"}, r"cannot be a set"),
        (lambda: "a text", r"returns a str; let it return an iterator"),
        (pd.DataFrame({"body": TEXTS}), r"the DataFrame has no column 'text'; set data\.column to one of: body"),
        (pd.DataFrame({"text": TEXTS}), r"the DataFrame has no column 'topic'; set data\.label to one of: text"),
        ([{"body": "x"}], r"has no column 'text'; set data\.column to one of: body"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            write_objects(objects, WANTED)
        assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_nothing(own_cache: Path) -> None:
    with pytest.raises(UserError):
        write_objects(["a text", datetime.date(2020, 1, 2)], WANTED[:1])
    assert list(own_cache.iterdir()) == []


def test_paths_and_sections_stay_what_they_were() -> None:
    for data in ("a.jsonl", Path("a.jsonl"), {"source": "a.jsonl", "column": "body"}):
        assert without_objects({"data": data, "steps": 1}) == ({"data": data, "steps": 1}, None)
    assert without_objects({"data.source": TEXTS}) == ({"data.source": STAND_IN}, TEXTS)


def test_recipes_of_questions_take_rows_and_those_of_images_refuse() -> None:
    rows = [{"question": f"What is {n} and 1?", "answer": f"#### {n + 1}"} for n in range(100)]
    settings = nano_jepa.Config(data=QuestionConfig(source=STAND_IN))
    data = with_objects(settings, pd.DataFrame(rows)).data
    assert len(questions(data, "train")) + len(questions(data, "eval")) == 100
    with pytest.raises(UserError, match=r"does not learn from texts; give data as a path"):
        with_objects(i_jepa.Config(), rows)
    assert with_objects(t_jepa.Config(), None) == t_jepa.Config()


def test_training_on_a_data_frame_resumes_and_evaluates_from_its_file(tmp_path: Path, own_cache: Path) -> None:
    words = ["soup", "bread", "salt", "oven", "spoon", "butter", "boat", "wind", "rope", "harbour"]
    bodies = [" ".join(words[(i * k + k) % 10] for k in range(1, 12)) + f" {i}" for i in range(120)]
    frame = pd.DataFrame({"body": bodies, "topic": [i % 2 for i in range(120)]})
    overrides = [item for item in TINY if not item.startswith("data.")] + ["data.column=body", "data.label=topic"]
    settings = {"overrides": [*overrides, "data.eval_fraction=0.2"], "progress": False}
    run = openjepa.train("t_jepa", data=frame, steps=2, out=tmp_path / "run", **settings)
    (file,) = own_cache.iterdir()
    assert run.config.data.source == str(file)
    assert sorted(json.loads(file.read_text().splitlines()[0])) == ["body", "topic"]
    again = openjepa.train("t_jepa", resume=True, out=tmp_path / "run", progress=False)
    assert set(again.held_out_texts()) < set(frame.body)
    assert again.summary()["notes"]["data"]["documents"] == 120
    assert again.evaluate().to_json()


def test_keywords_of_train_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "notes #1.jsonl"
    file.write_text("".join(json.dumps({"body": f"this is text number {i} of many"}) + "\n" for i in range(60)))
    settings = {"data": "notes #1.jsonl", "column": "body", "label": None, "betas": (0.8, 0.9), "steps": 2}
    settings |= {"encoder": {"dim": 32}, "predictor": {"width": 16, "heads": 2}, "train.health_samples": 1}
    words = [word for word in TINY if not word.startswith(("data.", "encoder.dim", "predictor.width"))]
    run = openjepa.train("t_jepa", out="run", overrides=[*words, "eval_fraction=0.2"], progress=False, **settings)
    config = run.config
    assert Path(config.data.source) == file
    assert (config.data.column, config.data.label, config.data.eval_fraction) == ("body", None, 0.2)
    assert (config.train.betas, config.train.steps, config.encoder.dim, config.encoder.depth) == ((0.8, 0.9), 2, 32, 1)
    assert run.summary()["notes"]["warmup_steps"] == 1  # of 100 that do not fit into 2 steps
    assert config.train.warmup_steps == 100
    with pytest.raises(UserError, match=r"^data: is a section of settings; .* \(given: None\)"):
        openjepa.train("t_jepa", data=None, progress=False)
    with pytest.raises(UserError, match=r"train\.steps cannot be changed in a run that exists"):
        openjepa.train("t_jepa", out="run", resume=True, steps=3)
    file.rename(tmp_path / "moved.jsonl")
    assert (
        openjepa.train("t_jepa", out="run", resume=True, data=tmp_path / "moved.jsonl", progress=False).path == run.path
    )


def test_objects_may_stand_in_a_section() -> None:
    values, objects = without_objects({"data": {"source": TEXTS, "column": "body"}, "steps": 3})
    assert objects is TEXTS
    assert values == {"data": {"source": STAND_IN, "column": "body"}, "steps": 3}


def test_types_are_recognised_without_an_import() -> None:
    code = (
        "import sys; from openjepa.data.files.objects import write_objects, Wanted;"
        "write_objects(['a text'], [Wanted('text', '')]);"
        "print([name for name in ('pandas', 'polars', 'datasets', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
