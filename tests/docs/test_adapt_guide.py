"""The commands and blocks of the guide to adaptation and of its method page, as they stand, on a small encoder."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from openjepa.cli import main
from tests.docs.pages import steps
from tests.e2e.test_adapt import corpus
from tests.opened import in_process
from tests.unit.test_sentence_head import SHAPES, sentence_model

pytest.importorskip("sentence_transformers")

GUIDE, METHOD = "docs/how-to/adapt-to-your-documents.md", "docs/methods/adapt.md"


def judged(folder: Path, rows: list[dict[str, str]]) -> None:
    """A BEIR folder whose queries are titles."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    queries = [{"_id": f"q{row['_id']}", "text": row["title"]} for row in rows[:20]]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{row['_id']}\t{row['_id']}\t1" for row in rows[:20])]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines))


def test_the_pages_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openjepa.export.proof.opened_elsewhere", in_process)
    sentence_model(SHAPES["mean of unit length"]).save_pretrained("models/encoder", create_model_card=False)
    rows = corpus(90, 4)
    Path("my_docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("new_docs.jsonl").write_text("\n".join(map(json.dumps, corpus(20, 4, seed=1))))
    judged(Path("judged"), rows)
    ran = 0
    for step in steps(GUIDE):
        if step.kind == "python":
            exec(compile(step.text, "block", "exec"), {})
        else:
            code = main(shlex.split(step.text.replace("--dims 128", "--dims 8"))[1:])  # the small encoder has 16
            # a small random encoder may lose on the guard: then --fail-if-worse exits with 1
            assert code == 0 or (code == 1 and "--fail-if-worse" in step.text), (step.text, capsys.readouterr().err)
        ran += 1
    assert ran == 10
    assert Path("runs/adapted/adaptation.json").exists()
    assert Path("my.index/documents.npy").exists()
    for step in steps(METHOD):
        assert step.text in [other.text for other in steps(GUIDE)]
