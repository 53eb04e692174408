"""The commands and Python blocks of the export guide, and the README's block, run as they stand on a tiny run."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openjepa.cli import main
from openjepa.core.errors import ReadingWarning
from tests.opened import in_process
from tests.tiny import TINY

pytest.importorskip("sentence_transformers")

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "tutorials" / "export-and-search.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^ {4}openjepa (.+?)(?: {2,}#.*)?$", re.MULTILINE)
QUERY = "my parcel came late"  # the guide's, and a document of the test's: the exact copy must be found first
OTHERS = ("the invoice shows a wrong sum", "I forgot the password")
SMALL = (*TINY, "data.eval_fraction=0.2", "steps=2")
INDEXES = {
    "faiss": "import faiss\n",
    "sqlite_vec": "import sqlite_vec\n",
    "qdrant_client": "from qdrant_client import",
}  # by package, what stands in the block


def block_with(text: str, page: Path = GUIDE) -> str:
    """The one Python block of a page in which `text` stands."""
    (found,) = (block for block in BLOCK.findall(page.read_text()) if text in block)
    return found


def run_block(code: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Execute a block, after others whose names it uses; the names it leaves."""
    names = {} if names is None else dict(names)
    exec(compile(code, "block", "exec"), names)
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tickets and a corpus, a tiny run and its export, by the guide's first two commands."""
    place = tmp_path_factory.mktemp("guide")
    bodies = [f"{topic}. Ticket {number}, please help." for number in range(80) for topic in (QUERY, *OTHERS)]
    bodies[100:100] = [QUERY]
    bodies[150:150] = OTHERS
    rows = "".join(f'{number},"{body}"\n' for number, body in enumerate(bodies))
    (place / "tickets.csv").write_text(f'id,body\n{rows}999,""\n', encoding="utf-8")
    (place / "corpus.jsonl").write_text("".join(json.dumps({"text": body}) + "\n" for body in bodies))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train, export = (line.split() for line in COMMAND.findall(GUIDE.read_text())[:2])
        assert main([*train, *SMALL, "--no-eval"]) == 0
        assert main(export) == 0
        yield place


@pytest.fixture(scope="module")
def searched(folder: Path) -> dict[str, Any]:
    """What the block before the three indexes leaves: model, texts, vectors, query."""
    return run_block(block_with("pd.read_csv"))


@pytest.fixture
def loadable_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sqlite3 that loads extensions: Python's own, or the package that the guide names."""
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        monkeypatch.setitem(sys.modules, "sqlite3", pytest.importorskip("pysqlite3"))


def test_every_block_is_executed_by_a_test() -> None:
    assert len(BLOCK.findall(GUIDE.read_text())) == len(INDEXES) + 2
    assert len(BLOCK.findall((ROOT / "README.md").read_text())) == 1
    searching = [block for block in BLOCK.findall(GUIDE.read_text()) if "run.export" not in block]
    assert not [block for block in searching if "openjepa" in block]


@pytest.mark.parametrize("package", INDEXES)
def test_an_index_finds_the_exact_copy_first(
    package: str, searched: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loadable_sqlite: None
) -> None:
    pytest.importorskip(package)
    code = block_with(INDEXES[package])
    assert len(searched["vectors"]) == len(searched["texts"]) == 243
    for number, text in enumerate((None, *OTHERS)):  # None: the block's own query
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        given = dict(searched)
        if text is not None:
            given["query"] = searched["model"].encode_query(text, normalize_embeddings=True)
        hits = run_block(code, given)["hits"]
        assert len(hits) == 3
        assert hits[0] == (text or QUERY)


def test_the_index_of_faiss_is_kept(searched: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    monkeypatch.chdir(tmp_path)
    run_block(block_with("import faiss"), searched)
    assert faiss.read_index("tickets.faiss").ntotal == len(searched["texts"])


def test_export_from_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("openjepa.export.proof.opened_elsewhere", in_process)
    done = run_block(block_with("run.export"))["done"]
    assert done.proofs[0].largest_difference <= 1e-4
    assert (folder / "exported-onnx" / "model_int8.onnx").exists()


def test_the_readme_searches_with_an_export(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copy(folder / "corpus.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openjepa.export.proof.opened_elsewhere", in_process)
    commands = [line.split() for line in COMMAND.findall((ROOT / "README.md").read_text())]
    train = next(words for words in commands if words[0] == "train")
    export = next(words for words in commands if words[0] == "export")
    assert main([*train, *SMALL, "--no-eval"]) == 0
    assert main(export) == 0
    code = block_with("SentenceTransformer", ROOT / "README.md")
    capsys.readouterr()
    names = run_block(code)
    assert capsys.readouterr().out.strip() in names["texts"]
    for text in names["texts"]:
        run_block(code.replace("Where is my parcel?", text))
        assert capsys.readouterr().out.strip() == text


@pytest.mark.slow
def test_the_other_commands_of_the_guide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("model2vec")
    monkeypatch.setattr("openjepa.export.proof.opened_elsewhere", in_process)
    stories = ["train", "lang_jepa", *TINY, "steps=2", "--out", "runs/stories", "--no-eval"]
    assert main(stories) == 0
    *others, push = COMMAND.findall(GUIDE.read_text())[2:]
    assert len(others) == 3
    assert push.startswith("push runs/tickets someone/tickets")  # tests/e2e/test_push.py pushes to a hub of its own
    for line in others:
        assert main(line.split()) == 0
    assert sorted(place.name for place in (folder / "exports").iterdir()) == [
        "model2vec",
        "onnx",
        "sentence-transformers",
        "transformers",
    ]
    assert (folder / "exported-stories" / "marked_sentences.py").exists()


def test_long_texts_are_cut_there_and_read_whole_here(folder: Path, searched: dict[str, Any]) -> None:
    from openjepa import api

    texts = [QUERY, " ".join([QUERY, *OTHERS] * 40)]
    run, theirs = api.load(folder / "runs" / "tickets"), searched["model"].encode(texts)
    with pytest.warns(ReadingWarning):
        cut, whole = run.encode(texts, long="cut"), run.encode(texts)
    assert abs(cut - theirs).max() < 1e-5
    assert abs(whole - theirs)[0].max() < 1e-5
    assert abs(whole - theirs)[1].max() > 1e-3
