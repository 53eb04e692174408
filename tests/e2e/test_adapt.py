"""A small sentence-transformers model is adapted to documents, used from its run folder, and exported with proof."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openjepa
from openjepa.adaptation.latents import DocumentLatents
from openjepa.adaptation.maps import SHRINKAGE, Whitening
from openjepa.adaptation.statistics import Block, Statistics
from openjepa.cli import main
from openjepa.core.errors import UserError
from openjepa.evals.features import cosine_rows, unit_rows
from openjepa.evals.layers import Point
from openjepa.export.bundle import export
from tests.opened import in_process
from tests.unit.test_sentence_head import SHAPES, sentence_model

pytest.importorskip("sentence_transformers")

TEXTS = ["word1 word2 word3 .", "word40 word41 .", "word7"]


def corpus(count: int, sentences: int, seed: int = 0) -> list[dict[str, str]]:
    """Documents of a topic each: its five words in sentences."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        topic = random.choice(60, 5, replace=False)
        lines = [" ".join(f"word{word}" for word in random.choice(topic, 4)) + " ." for _ in range(sentences)]
        rows.append({"_id": str(number), "title": f"word{topic[0]}", "text": " ".join(lines)})
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt") / "base"
    sentence_model(SHAPES["mean of unit length"]).save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    out = tmp_path_factory.mktemp("adapt") / "run"
    options: dict[str, Any] = {"keep": "predictor", "device": "cpu", "precision": "32"}
    return openjepa.adapt(base, data=corpus(450, 4), title="title", out=out, **options)


def test_the_run_gives_the_vectors_of_the_formulas(base: Path, adapted: openjepa.Run) -> None:
    from sentence_transformers import SentenceTransformer

    found = adapted.adaptation()
    parts = sum(5 - (row["text"].split()[0] == row["title"]) for row in corpus(450, 4))  # no title is told twice
    assert (found["documents"], found["parts"], found["decision"]["kept"]) == (450, parts, "predictor")
    assert set(found["held_out"]) == {"start", "whitening", "predictor"}
    assert found["held_out"]["start"]["neighbours_kept"] == 1
    latents = DocumentLatents.open(adapted.path / "latents")
    whitening = Whitening.fitted(Statistics.of(Block(np.array(latents.parts, np.float64), latents.owner)), SHRINKAGE)
    expected = whitening(SentenceTransformer(str(base), device="cpu").encode(TEXTS))
    np.testing.assert_allclose(adapted.encode_document(TEXTS), expected, atol=1e-5)
    queries = adapted.encode_query(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    assert cosine_rows(queries, expected).max() < 0.999  # queries move
    assert adapted.encode_query(TEXTS[0]).shape == (16,)
    again = openjepa.load(adapted.path, "cpu", "32")
    np.testing.assert_array_equal(again.encode_query(TEXTS), queries)


def test_its_initialisation_is_the_encoder_as_it_was(base: Path, adapted: openjepa.Run) -> None:
    from sentence_transformers import SentenceTransformer

    from openjepa.evals.features import embedder_of

    start = embedder_of(adapted.fresh())(TEXTS)
    np.testing.assert_allclose(start, SentenceTransformer(str(base), device="cpu").encode(TEXTS), atol=1e-5)


def test_an_update_gives_what_all_documents_give(base: Path, adapted: openjepa.Run, tmp_path: Path) -> None:
    rows = corpus(450, 4)
    options: dict[str, Any] = {"keep": "predictor", "device": "cpu", "precision": "32"}
    first = openjepa.adapt(base, data=rows[:420], title="title", out=tmp_path / "first", **options)
    shutil.rmtree(first.path / "data", ignore_errors=True)  # they are not read again
    second = openjepa.adapt(first.path, data=rows[400:], update=True, out=tmp_path / "second", **options)
    found = second.adaptation()
    assert (found["documents_before"], found["documents_again"], found["documents"]) == (420, 20, 450)
    np.testing.assert_allclose(second.encode_document(TEXTS), adapted.encode_document(TEXTS), atol=1e-4)
    np.testing.assert_allclose(second.encode_query(TEXTS), adapted.encode_query(TEXTS), atol=1e-4)
    for given, reason in (
        ({"base": first.path, "parts": "paragraphs"}, "other parts="),
        ({"base": base}, "is not a run folder"),
    ):
        with pytest.raises(UserError, match=reason):
            openjepa.adapt(**given, data=rows, update=True, out=tmp_path / "third", **options)


def test_queries_are_mapped_in_the_space_of_the_embedding_alone(adapted: openjepa.Run) -> None:
    other = Point("student", 1, "mean")
    np.testing.assert_array_equal(adapted.encode_query(TEXTS, at=other), adapted.encode(TEXTS, at=other))
    assert not np.array_equal(adapted.encode_query(TEXTS), adapted.encode(TEXTS))


@pytest.mark.parametrize("to", ["sentence-transformers", "onnx"])
def test_exports_map_queries_as_the_run_does(adapted: openjepa.Run, tmp_path: Path, to: Any) -> None:
    kept = export(adapted.export_source(), to, tmp_path / "out", opened=in_process)
    assert kept.proofs[0].holds
    described = json.loads((tmp_path / "out" / "export.json").read_text())
    assert described["maps_queries"]
    if to == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
        np.testing.assert_allclose(model.encode_query(TEXTS), adapted.encode_query(TEXTS), atol=1e-5)
        np.testing.assert_allclose(model.encode_document(TEXTS), adapted.encode_document(TEXTS), atol=1e-5)
        with pytest.raises(UserError, match="maps queries already"):
            openjepa.adapt(tmp_path / "out", data=corpus(80, 3), out=tmp_path / "again", keep="predictor")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (corpus(10, 3), "10 documents have two or more parts"),
        ([{**row, "title": ""} for row in corpus(100, 1)], "0 documents have two or more parts"),
    ],
)
def test_the_start_comes_out_where_nothing_can_be_learned(
    base: Path, tmp_path: Path, rows: list[dict[str, str]], reason: str
) -> None:
    from sentence_transformers import SentenceTransformer

    run = openjepa.adapt(base, data=rows, out=tmp_path / "run", device="cpu", precision="32")
    decision = run.adaptation()["decision"]
    assert decision["kept"] == "start"
    assert reason in decision["reasons"][0]
    expected = SentenceTransformer(str(base), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(run.encode_query(TEXTS), expected, atol=1e-5)
    export(run.export_source(), "sentence-transformers", tmp_path / "out", opened=in_process)
    again = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(again.encode_query(TEXTS), expected, atol=1e-5)


def test_sentences_shuffled_across_documents_keep_the_start(base: Path, tmp_path: Path) -> None:
    rows = corpus(150, 4)
    sentences = [part for row in rows for part in row["text"].split(" . ")]
    mixed = np.random.default_rng(1).permutation(sentences)
    data = [" . ".join(mixed[4 * n : 4 * n + 4]) for n in range(150)]
    run = openjepa.adapt(base, data=data, out=tmp_path / "run")
    assert run.adaptation()["decision"]["kept"] == "start"


def test_a_guard_that_falls_keeps_the_start(base: Path, tmp_path: Path) -> None:
    """Ratings that follow the start's own cosines can only fall when the vectors change."""
    start = openjepa.adapt(base, data=corpus(80, 3), out=tmp_path / "start", keep="start", precision="32")
    words = [f"word{n} word{n + 1} word{n + 2}" for n in range(0, 56)]
    vectors = unit_rows(start.encode(words).astype(np.float64))
    pairs = [
        {"sentence1": words[a], "sentence2": words[b], "score": float(vectors[a] @ vectors[b])}
        for a in range(56)
        for b in range(a)
    ]
    guard = tmp_path / "pairs.jsonl"
    guard.write_text("\n".join(map(json.dumps, pairs)))
    options: dict[str, Any] = {"data": corpus(80, 3), "keep": "whitening", "guard": [guard]}
    strict = openjepa.adapt(base, out=tmp_path / "strict", max_loss=0.0, **options)
    found = strict.adaptation()
    assert found["decision"]["kept"] == "start"
    assert "a guarded measure lost more than 0 points" in found["decision"]["reasons"][-1]
    assert found["guard"]["worse"]
    np.testing.assert_array_equal(strict.encode(TEXTS), start.encode(TEXTS))
    lenient = openjepa.adapt(base, out=tmp_path / "lenient", max_loss=100.0, **options)
    assert lenient.adaptation()["decision"]["kept"] == "whitening"


def test_the_command_says_what_it_keeps_and_bad_input_is_one_line(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openjepa.cli.adapt._exported", lambda run: None)
    file = tmp_path / "docs.jsonl"
    file.write_text("\n".join(map(json.dumps, corpus(70, 3))))
    command = ["adapt", str(base), f"data={file}", "title=title", "--out", str(tmp_path / "run")]
    assert main([*command, "--keep", "whitening"]) == 0
    shown = capsys.readouterr()
    assert "kept: whitening" in shown.out
    assert "70 documents" in shown.out
    guarded = [*command[:3], "--guard", str(tmp_path / "x.txt"), "--out", str(tmp_path / "e")]
    for words, reason in (
        (command, "already holds a run"),
        (["adapt", f"data={file}", "--out", str(tmp_path / "b")], "give an encoder"),
        (["adapt", str(tmp_path / "none"), f"data={file}", "--out", str(tmp_path / "c")], "none"),
        (["adapt", str(base), f"data={file}", "title=heading", "--out", str(tmp_path / "d")], "heading"),
        (guarded, "x.txt"),
    ):
        assert main(words) == 2, words
        said = capsys.readouterr().err
        assert reason in said
        assert said.count("\n") == 1, said
