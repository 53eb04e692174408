"""A suite file is validated and read as one thing: mistakes have a file and a key, draws and keys are fixed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from openjepa.core.errors import ConfigError, UserError
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Classification, Search, Similarity
from openjepa.data.text.sources import is_held_out
from openjepa.evals.scorecard import Scorecard
from openjepa.evals.scores import Score
from openjepa.evals.statistics import difference
from openjepa.evals.suite import run_suite
from openjepa.evals.suite_file import Suite
from openjepa.tasks.sampling import drawn

PAIRS = [
    {"sentence1": a, "sentence2": b, "score": s} for a, b, s in (("a b", "a c", 5), ("a b", "x", 0), ("q", "q r", 4))
]
LABELLED = [{"text": f"text number {n}", "label": n % 3, "body": f"other {n}"} for n in range(60)]


def lines(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def opened(folder: Path, *tasks: dict, **more) -> Suite:
    (folder / "mine.yaml").write_text(yaml.safe_dump({"tasks": list(tasks), **more}))
    return Suite.open(folder / "mine.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines(tmp_path / "pairs.jsonl", PAIRS)
    lines(tmp_path / "train.jsonl", LABELLED[:40])
    lines(tmp_path / "test.jsonl", LABELLED[40:])
    pq.write_table(pa.Table.from_pylist(LABELLED), tmp_path / "all.parquet")
    (tmp_path / "articles.txt").write_text("\n".join(f"One is {n}. Two is red. Three is {n} too." for n in range(30)))
    return tmp_path


STS = {"kind": "sts", "name": "pairs", "file": "pairs.jsonl"}
PROBE = {"kind": "probe", "name": "label", "train": "train.jsonl", "test": "test.jsonl"}


def test_tasks_come_by_entry_from_beside_the_file(folder: Path) -> None:
    suite = opened(
        folder, STS, PROBE, {"kind": "hidden_sentence", "name": "art", "source": "articles.txt", "documents": 9}
    )
    assert suite.name == "mine"
    assert list(suite.groups) == ["pairs", "label", "art"]
    assert [task.name for task in suite.groups["art"]] == ["art_within", "art_elsewhere"]
    ((pairs,), (probe,)) = suite.groups["pairs"], suite.groups["label"]
    assert isinstance(pairs, Similarity)
    assert isinstance(probe, Classification)
    assert (len(probe.train), len(probe.test), probe.classes) == (40, 20, ("0", "1", "2"))
    assert [probe.classes[label] for label in probe.train_labels] == [str(n % 3) for n in range(40)]
    assert suite.notes == {}


def test_a_limit_draws_the_same_texts_whatever_their_order(folder: Path) -> None:
    def texts() -> tuple[list, list]:
        ((probe,),) = opened(folder, PROBE | {"train_limit": 10, "test_limit": 5}).groups.values()
        return list(probe.train), list(probe.test)

    train, test = texts()
    assert (len(train), len(test)) == (10, 5)
    assert train == sorted(train, key=lambda text: int(text.split()[-1]))  # in the order of the file
    lines(folder / "train.jsonl", LABELLED[:40][::-1])
    assert texts() == (train[::-1], test)
    assert drawn(range(100), 0, str) == list(range(100))
    assert set(drawn(range(100), 20, str)) & set(range(50)) == set(drawn(range(50), 20, str)) & set(
        drawn(range(100), 20, str)
    )


def test_without_test_the_texts_that_a_run_holds_out_are_asked(folder: Path) -> None:
    split = {"kind": "probe", "name": "body", "train": "all.parquet", "text": "body", "test_fraction": 0.3}
    ((probe,),) = opened(folder, split | {"ignore_labels": ["2"]}).groups.values()
    assert probe.classes == ("0", "1")
    assert probe.test == [r["body"] for r in LABELLED if is_held_out(r["body"], 0.3) and r["label"] != 2]
    assert set(probe.train) | set(probe.test) == {row["body"] for row in LABELLED if row["label"] != 2}
    assert not set(probe.train) & set(probe.test)


def test_what_is_odd_is_counted(folder: Path) -> None:
    odd = [{"text": "new", "label": 7}, {"text": "", "label": 1}, {"text": "unlabelled"}, LABELLED[0]]
    lines(folder / "test.jsonl", [*LABELLED[40:], *odd])
    suite = opened(folder, PROBE)
    assert len(suite.groups["label"][0].test) == 21
    assert suite.notes == {
        "label: row without a text": 1,
        "label: row without a label": 1,
        "label: test text whose label train lacks": 1,
        "label: test text that is also in train": 1,
    }


def test_held_out_documents_only(folder: Path) -> None:
    entry = {"kind": "hidden_sentence", "name": "art", "source": "articles.txt", "documents": 0}
    everything = opened(folder, entry).groups["art"][0].queries
    some = opened(folder, entry | {"held_out": 0.4}).groups["art"][0].queries
    assert set(some) < set(everything)
    assert 5 < len(some) < 20


def test_the_key_changes_with_settings_and_data_and_with_nothing_else(folder: Path) -> None:
    key = opened(folder, STS, PROBE).key
    assert opened(folder, STS, PROBE).key == key
    assert opened(folder, STS, PROBE, name="other").key == key
    assert opened(folder, STS, PROBE | {"train_limit": 3}).key != key
    lines(folder / "pairs.jsonl", [*PAIRS, PAIRS[0]])
    assert opened(folder, STS, PROBE).key != key


@pytest.mark.parametrize(
    ("tasks", "hint"),
    [
        ([STS | {"fiel": "x"}], r"mine.yaml: unknown key 'tasks.0.sts.fiel'"),
        ([{"kind": "sts", "name": "pairs"}], r"mine.yaml: tasks.0.sts.file: Field required"),
        (
            [{"kind": "stss", "name": "pairs"}],
            r"mine.yaml: tasks.0: kind must be one of sts, probe, retrieval, hidden_sen",
        ),
        ([STS, STS], r"mine.yaml: .*tasks share a name: pairs"),
        ([], r"mine.yaml: tasks: .*at least 1"),
        ([STS | {"name": "a/b"}], r"mine.yaml: tasks.0.sts.name"),
        ([PROBE | {"train_limit": -1}], r"mine.yaml: tasks.0.probe.train_limit"),
    ],
)
def test_a_mistake_in_the_file_has_its_key(folder: Path, tasks: list[dict], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        opened(folder, *tasks)


def test_a_file_that_is_missing_or_no_yaml_or_wrongly_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no suite file at .*none.yaml"):
        Suite.open(folder / "none.yaml")
    (folder / "broken.yaml").write_text("tasks: [")
    with pytest.raises(ConfigError, match=r"broken.yaml line 1 is not valid YAML"):
        Suite.open(folder / "broken.yaml")
    with pytest.raises(ConfigError, match="cannot be named default"):
        opened(folder, STS, name="default")


@pytest.mark.parametrize(
    ("task", "hint"),
    [
        (STS | {"file": "none.jsonl"}, r"mine.yaml, task pairs: there is no file or folder at .*none.jsonl"),
        (PROBE | {"test": "none.jsonl"}, r"task label: there is no file or folder at .*none.jsonl"),
        (PROBE | {"label": "topic"}, r"task label: .*no test text"),
        (PROBE | {"text": "words"}, r"task label: train.jsonl has no column 'words'; set text to one of: body, label"),
        ({"kind": "retrieval", "name": "r", "folder": "none"}, r"task r: there is no file or folder at"),
        ({"kind": "hidden_sentence", "name": "h", "source": "none.txt"}, r"task h: there is no file or folder at"),
        ({"kind": "hidden_sentence", "name": "h", "source": "pairs.jsonl"}, r"task h: .*no column 'text'"),
    ],
)
def test_data_that_cannot_be_read_names_its_entry(folder: Path, task: dict, hint: str) -> None:
    suite = opened(folder, task)
    with pytest.raises(UserError, match=hint):
        _ = suite.groups


def test_the_example_of_the_guide_is_in_order(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "evaluate.md").read_text()
    (folder / "guide.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    kinds = [entry.kind for entry in Suite.open(folder / "guide.yaml").config.tasks]
    assert set(kinds) == {"sts", "triplets", "alignment", "probe", "retrieval", "hidden_sentence", "mteb"}


def test_triplets_from_a_file(folder: Path) -> None:
    rows = [
        {"anchor": "aa", "positive": "bb", "negative": "c" * 9},
        {"anchor": "a", "positive": "b" * 9, "negative": "c"},
    ]
    lines(folder / "triplets.jsonl", rows)
    (tasks,) = opened(folder, {"kind": "triplets", "name": "near", "file": "triplets.jsonl"}).groups.values()
    scorecard = run_suite(tasks, dict.fromkeys(("run", "init", "random", "zeros"), lengths))
    assert scorecard.measures["near"].values["run"] == 0.5
    assert scorecard.measures["near"].chance == 0.5


def by_length(texts: Sequence[str]) -> np.ndarray:
    angles = np.array([len(text) / 100 for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def test_an_alignment_looks_for_the_second_text_among_those_of_other_first_texts(folder: Path) -> None:
    rows = [{"first": "q" * n, "second": "a" * n} for n in range(1, 121)]
    rows += [{"first": "q", "second": "aa"}, {"first": "other", "second": "a"}]  # a question with two right answers
    lines(folder / "qa.jsonl", rows)
    (tasks,) = opened(folder, {"kind": "alignment", "name": "qa", "file": "qa.jsonl"}).groups.values()
    (task,) = tasks
    assert isinstance(task, Search)
    assert task.pools is not None
    assert task.pools.shape == (122, 100)
    for query, pool, gains in zip(task.queries, task.pools, task.gains, strict=True):
        right = {row["second"] for row in rows if row["first"] == query}
        assert [task.documents[number] for number in gains] == [task.documents[pool[0]]]
        assert len(set(pool)) == 100
        assert not right & {task.documents[number] for number in pool[1:]}
    scorecard = run_suite(tasks, dict.fromkeys(("run", "init", "random", "zeros"), by_length))
    assert scorecard.measures["qa_top1"].chance == pytest.approx(0.01)
    assert scorecard.measures["qa_top1"].values["run"] == pytest.approx(
        121 / 122
    )  # all but "other", which is five long
    assert scorecard.measures["qa_mrr"].values["run"] > 0.99


@pytest.mark.parametrize(
    ("kind", "row", "hint"),
    [
        ("triplets", {"anchor": "a", "positive": "b"}, r"task t: .*rows.jsonl line 1 has no field 'negative'"),
        ("alignment", {"first": "a", "second": 3}, r"task t: .*line 1: second must be a text, not 3"),
        ("alignment", {"first": "a", "second": "b"}, r"task t: .*holds 1 different second texts"),
    ],
)
def test_rows_that_cannot_be_asked_are_named(folder: Path, kind: str, row: dict, hint: str) -> None:
    lines(folder / "rows.jsonl", [row])
    with pytest.raises(UserError, match=hint):
        _ = opened(folder, {"kind": kind, "name": "t", "file": "rows.jsonl"}).groups


def test_a_measure_has_one_task(folder: Path) -> None:
    (first,) = opened(folder, STS).groups.values()
    columns = dict.fromkeys(("run", "init", "random", "zeros"), lambda texts: np.zeros((len(texts), 2)))
    scorecard = run_suite(first, columns)
    with pytest.raises(UserError, match="the same name: pairs"):
        Scorecard.joined([scorecard, scorecard])


class StandIn(ModuleType):
    """As much of mteb as is used: get_task, evaluate, and a task that asks an encoder for two batches."""

    class ModelMeta(SimpleNamespace):
        @classmethod
        def create_empty(cls, overwrites: dict) -> StandIn.ModelMeta:
            return cls(**overwrites)

    @staticmethod
    def get_task(name: str) -> str:
        if name != "Pairs":
            raise KeyError(f"'{name}' not found")
        return name

    @staticmethod
    def evaluate(model, task: str, *, cache: None, overwrite_strategy: str, co2_tracker: bool) -> SimpleNamespace:
        assert (task, model.mteb_model_meta.name) == ("Pairs", "openjepa/run")
        batches = [{"text": ["a", "bb"]}, {"text": ["ccc"]}]
        vectors = model.encode(batches, task_metadata=task, hf_split="test", hf_subset="default", prompt_type=None)
        assert vectors.shape[0] == 3
        np.testing.assert_allclose(np.diag(model.similarity(vectors, vectors)), 1)
        np.testing.assert_allclose(model.similarity_pairwise(vectors, vectors), 1)
        return SimpleNamespace(
            task_results=[SimpleNamespace(get_score=lambda: model.similarity(vectors[0], vectors[2])[0, 0])]
        )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    models = ModuleType("mteb.models.model_meta")
    vars(models)["ModelMeta"] = StandIn.ModelMeta
    monkeypatch.setitem(sys.modules, "mteb", StandIn("mteb"))
    monkeypatch.setitem(sys.modules, "mteb.models", ModuleType("mteb.models"))
    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", models)


def lengths(texts: Sequence[str]) -> np.ndarray:
    return np.array([[1.0, len(text)] for text in texts])


@pytest.mark.usefixtures("stand_in")
def test_a_task_of_mteb_is_asked_of_networks_alone_and_claims_nothing(folder: Path) -> None:
    (tasks,) = opened(folder, {"kind": "mteb", "task": "Pairs"}).groups.values()
    scorecard = run_suite(
        tasks, dict.fromkeys(("run", "init", "random"), lengths) | {"init": lambda t: lengths(t)[:, ::-1]}
    )
    measure = scorecard.measures["Pairs_main"]
    assert measure.values["run"] == pytest.approx(4 / np.sqrt(2 * 10))
    assert (measure.chance, measure.interval, measure.verdict) == (None, None, "untested")
    assert Scorecard.from_json(json.loads(json.dumps(scorecard.to_json()))) == scorecard
    assert scorecard.table().row_count == 1
    with pytest.raises(UserError, match="mteb has no task 'Other'"):
        _ = opened(folder, {"kind": "mteb", "task": "Other"}).groups


@pytest.mark.usefixtures("stand_in")
def test_an_mteb_task_that_cannot_be_fetched_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(StandIn, "evaluate", staticmethod(offline))
    (tasks,) = opened(folder, {"kind": "mteb", "task": "Pairs"}).groups.values()
    with pytest.raises(UserError, match="mteb could not run 'Pairs': no route to the hub"):
        run_suite(tasks, dict.fromkeys(("run", "init", "random"), lengths))


def test_without_mteb_it_is_said_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(UserError, match="pip install 'mteb>=2'"):
        _ = opened(folder, {"kind": "mteb", "task": "Pairs"}).groups


def test_a_score_of_one_item_has_no_interval_over_items() -> None:
    high, low = Score(np.array([0.9]), None), Score(np.array([0.1]), None)
    one = difference([high], [low], generator_for(0, "test"))
    assert (one.interval, one.p_items) == (None, None)
    two = difference([high, high], [low, Score(np.array([0.3]), None)], generator_for(0, "test"))
    assert two.p_items is None
    assert two.interval[0] < 0.7 < two.interval[1]
