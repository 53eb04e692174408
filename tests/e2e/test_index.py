"""An index: exact scores in parts, words as scikit-learn has them, growth without a rebuild, and what a kill leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

import openjepa
from openjepa.cli import main
from openjepa.core.errors import UserError, WriteError
from openjepa.evals.features import unit_rows
from openjepa.retrieval.search import Index, Weights
from tests.faults import full_disk

ROWS = [
    {
        "title": f"Report {n}",
        "text": f"The harbour number {n} was quiet. Boats {n % 7} came late. Rain fell on day {n % 5}.",
    }
    for n in range(300)
]
QUERY = "boats 3 in the rain"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    texts = [row["text"] for row in ROWS]
    out = tmp_path_factory.mktemp("search") / "run"
    trained = openjepa.train("t_jepa", data=texts, steps=2, health_every=2, out=out, progress=False)
    return trained.to("cpu", "32")


@pytest.fixture(scope="module")
def index(run: openjepa.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "index"
    added = openjepa.build_index(run, data=ROWS, title="title", out=out)
    assert (added.added, added.there, added.documents, added.sentences) == (300, 0, 300, 1200)
    return out


def opened(path: Path) -> Index:
    return openjepa.open_index(path, "cpu", "32")


def test_scores_are_exact_and_their_parts_add_up(run: openjepa.Run, index: Path) -> None:
    weights = Weights(1.0, 0.5, 2.0)
    hits = opened(index).search(QUERY, 300, weights)
    wholes = [f"{row['title']} {row['text']}" for row in ROWS]
    vectors = unit_rows(run.encode(wholes))
    query = unit_rows(run.encode([QUERY]))[0]
    words = TfidfVectorizer(sublinear_tf=True)
    tfidf = (words.fit_transform(wholes) @ words.transform([QUERY]).T).toarray()[:, 0]
    numbers = {text: number for number, text in enumerate(wholes)}
    for hit in hits:
        number = numbers[hit.text]
        sentences = [ROWS[number]["title"], *(f"{part}." for part in ROWS[number]["text"].rstrip(".").split(". "))]
        cosines = unit_rows(run.encode(sentences)) @ query
        assert hit.shares["document"] == pytest.approx(vectors[number] @ query, abs=1e-5)
        assert hit.shares["sentence"] == pytest.approx(0.5 * cosines.max(), abs=2e-3)  # half precision
        assert hit.shares["words"] == pytest.approx(2 * tfidf[number], abs=1e-9)
        assert hit.score == pytest.approx(sum(hit.shares.values()))
        assert cosines[sentences.index(hit.reason)] == pytest.approx(cosines.max(), abs=4e-3)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len({hit.text for hit in hits}) == 300


def test_documents_are_unit_rows_for_other_tools(run: openjepa.Run, index: Path) -> None:
    vectors = np.load(index / "documents.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_new_documents_are_added_and_old_ones_are_not_added_again(
    run: openjepa.Run, index: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    openjepa.build_index(run, data=ROWS[:120], title="title", out=grown)
    added = openjepa.build_index(run, data=[*ROWS[100:], *ROWS[:20]], title="title", out=grown)
    assert (added.added, added.there, added.documents) == (180, 40, 300)
    for name in ("documents.npy", "sentences.npy", "owner.npy"):
        np.testing.assert_allclose(np.load(grown / name), np.load(index / name), atol=1e-3)
    for ours, theirs in zip(opened(grown).search(QUERY), opened(index).search(QUERY), strict=True):
        assert (ours.text, ours.reason) == (theirs.text, theirs.reason)
        assert ours.score == pytest.approx(theirs.score, abs=1e-3)


def test_what_was_killed_within_a_block_goes_on(run: openjepa.Run, index: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(index, broken)
    for name in ("documents.npy", "sentences.npy", "owner.npy", "word_numbers.npy", "texts.jsonl", "text_ends.npy"):
        with (broken / name).open("ab") as file:
            file.write(b"half a block that no state counts")
    more = [{"title": "New", "text": "A storm broke the pier. Nobody was hurt."}]
    openjepa.build_index(run, data=more, title="title", out=broken)
    hits = opened(broken).search("A storm broke the pier.", 1)
    assert hits[0].text.startswith("New A storm")
    assert len(opened(broken)) == 301
    assert opened(broken).search(QUERY, 5)[0].text == opened(index).search(QUERY, 5)[0].text


def test_a_full_disk_is_one_line_and_costs_no_document(run: openjepa.Run, index: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    shutil.copytree(index, full)
    more = [{"title": f"New {n}", "text": f"Storm {n} broke the pier. Nobody of {n} was hurt."} for n in range(300)]
    with full_disk((full / "documents.npy").stat().st_size + 5_000), pytest.raises(WriteError, match="cannot write"):
        openjepa.build_index(run, data=more, title="title", out=full)
    assert [hit.id for hit in opened(full).search(QUERY, 5)] == [hit.id for hit in opened(index).search(QUERY, 5)]
    assert openjepa.build_index(run, data=more, title="title", out=full).documents == 600


def test_an_index_belongs_to_one_run(index: Path, tmp_path: Path) -> None:
    texts = [row["text"] for row in ROWS[:100]]
    other = openjepa.train("t_jepa", data=texts, steps=1, health_every=1, out=tmp_path / "other", progress=False)
    with pytest.raises(UserError, match=r"was made by .*; choose another --out"):
        openjepa.build_index(other, data=ROWS, out=index)
    with pytest.raises(UserError, match=r"is no search index; openjepa index RUN"):
        openjepa.open_index(tmp_path)


def test_the_commands(run: openjepa.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS[:50])))
    out = tmp_path / "my.index"
    command = ["index", str(run.path), f"data={file}", "title=title", "--out", str(out)]
    assert main(command) == 0
    assert "50 documents added" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 documents added, 50 were in it already" in capsys.readouterr().out
    assert main(["search", str(out), QUERY, "--top", "2", "--words", "0", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [len(hits), hits[0]["shares"]["words"]] == [2, 0]
    for words in (["search", str(out), "  "], ["search", str(tmp_path / "none"), "a"], ["index", "--out", str(out)]):
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_an_index_is_searched_by_the_weights_that_made_it_alone(run: openjepa.Run, tmp_path: Path) -> None:
    mine = tmp_path / "run"
    shutil.copytree(run.path, mine)
    openjepa.build_index(openjepa.load(mine), data=ROWS[:20], title="title", out=tmp_path / "index")
    moved = tmp_path / "moved"
    mine.rename(moved)
    added = openjepa.build_index(openjepa.load(moved), data=ROWS[20:30], title="title", out=tmp_path / "index")
    assert added.documents == 30  # the same weights in another place
    shutil.rmtree(moved)
    texts = [row["text"] for row in ROWS]
    openjepa.train("t_jepa", data=texts, steps=2, health_every=2, seed=1, out=moved, progress=False)
    with pytest.raises(UserError, match="whose newest weights are others"):
        opened(tmp_path / "index").search(QUERY)
    with pytest.raises(UserError, match="with other weights, which give other vectors"):
        openjepa.build_index(openjepa.load(moved), data=ROWS[30:], title="title", out=tmp_path / "index")
