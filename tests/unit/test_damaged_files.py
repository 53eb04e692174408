"""Small files of a run folder that are damaged: one clear line, or left out and said; and pages that stay pages."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import openjepa
from openjepa.cli import main
from openjepa.core.errors import UserError
from openjepa.core.json_files import Environment, HealthRecord, Summary, read_json, read_jsonl, read_object
from openjepa.core.manifest import write_manifest
from openjepa.core.rundir import RunDir
from openjepa.core.values import as_yaml
from openjepa.pages.study import study_page
from openjepa.training import checkpoint

BAD = '<img src=x onerror="alert(1)">'
TEXTS = [f"a story about number {n} . it ends here ." for n in range(60)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated run of a few kilobytes, with labels."""
    folder = tmp_path_factory.mktemp("damaged")
    rows = [{"text": text, "label": str(number % 2)} for number, text in enumerate(TEXTS)]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"source": str(folder / "docs.jsonl"), "label": "label", "eval_fraction": 0.3}
    small = {"encoder": {"dim": 16, "depth": 1, "heads": 2, "max_len": 16}, "predictor": {"width": 16, "heads": 2}}
    run = openjepa.train(
        "t_jepa", data=data, steps=2, health_every=1, workers=0, out=folder / "run", progress=False, **small
    )
    run.evaluate()
    run.add_to_summary({"semantic": {**run.similar(["a story", "another"], TEXTS), "labels": ["one", "other"]}})
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


WRONG = ["", "{", "[1]", "null", "3", "[" * 100_000, "9" * 5000, '{"a": ' * 60 + "1" + "}" * 60]


@pytest.mark.parametrize("text", WRONG)
def test_an_object_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "env.json"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"{file} is damaged: .*; remove it"):
        read_object(file, Environment)
    assert read_object(tmp_path / "none.json", Environment) == {}


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        (Environment, {"command": 3}, r"command: input should be a valid string \(it is 3\)"),
        (
            Environment,
            {"notes": {"data": {"documents": None}}},
            "notes.data.documents: input should be a valid integer",
        ),
        (Summary, {"train_s": "long"}, r"train_s: input should be a valid number \(it is 'long'\)"),
        (Summary, {"train_s": float("nan")}, "train_s: input should be a finite number"),
        (Summary, {"health": {"step": 1}}, "health.status: field required"),
        (Summary, {"semantic": {"texts": ["a"]}}, "semantic.cosine: field required"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_key(
    tmp_path: Path, schema: Any, value: dict[str, Any], said: str
) -> None:
    (tmp_path / "file.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=said):
        read_object(tmp_path / "file.json", schema)


def test_lines_that_are_no_records_are_left_out_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "health.jsonl"
    good = {"step": 3, "status": "healthy", "rank": 2.5}
    wrong = [
        "[1]",
        "null",
        "{}",
        '{"step": -1, "status": "x"}',
        '{"step": 1, "status": "x", "rank": "<b>"}',
        "9" * 5000,
    ]
    file.write_text("\n".join([*wrong, json.dumps(good)]) + '\n{"step": 4, "sta')
    for _ in range(2):
        (record,) = read_jsonl(file, HealthRecord)
    assert record == {**good, "kind": None, "evidence": "", "advice": "", "also": [], "score": 0.0}
    said = capsys.readouterr().err
    assert said == f"openjepa: {file}: 6 damaged lines are left out, the first is line 1\n"


def test_what_is_no_checkpoint_is_left_out_and_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("step-abc", "step-", "step--5"):
        (run / "checkpoints" / name).mkdir()
    (run / "checkpoints" / "step-000009").write_text("a file")
    for _ in range(2):
        assert [path.name for path in checkpoint.finished(run / "checkpoints")] == ["step-000002"]
    said = capsys.readouterr().err
    assert said.count("is no checkpoint, and left out") == 4


@pytest.mark.parametrize("mark", ["", "[1]", '{"step": 1e400, "score": 1}', '{"step": "a", "score": 1}', "[" * 100_000])
def test_a_damaged_mark_of_the_best_checkpoint_is_no_mark(run: Path, mark: str) -> None:
    (run / "checkpoints" / checkpoint.BEST).write_text(mark)
    assert checkpoint.best(run / "checkpoints").name == "step-000002"


def test_a_run_whose_logs_are_gone_says_so_when_it_is_resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.jsonl").write_text("{}\n")
    assert main(["train", "--resume", str(run), "--no-eval"]) == 2
    assert f"{run / 'metrics.jsonl'} holds no whole record of the run any more" in capsys.readouterr().err


def test_an_evaluation_that_is_damaged_leaves_the_others_on_the_page(run: Path) -> None:
    scores = json.loads((run / "evals" / "default.json").read_text())
    (run / "evals" / "other.json").write_text(json.dumps({"m": {**next(iter(scores.values())), "run": "high"}}))
    (run / "evals" / "sweep.json").write_text('{"points": []}')
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "other.json is damaged: m.run: input should be a valid number" in page
    assert "sweep.json is damaged: chosen: field required" in page
    assert "Did training help?" in page
    assert "scorecard default" in page


def hostile(value: Any) -> Any:
    """The same with BAD in place of every text, names of measures, packages and counts included."""
    if isinstance(value, dict):
        free = not {"status", "versions", "run", "texts", "peak_memory_gb", "semantic"} & value.keys()
        return {f"{key} {BAD}" if free and " " not in key else key: hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return BAD if isinstance(value, str) else value


def texts_only(value: Any) -> Any:
    """The same with BAD in place of every text."""
    if isinstance(value, dict):
        return {key: texts_only(inner) for key, inner in value.items()}
    return [texts_only(one) for one in value] if isinstance(value, list) else BAD if isinstance(value, str) else value


@pytest.mark.parametrize("change", [texts_only, hostile])
def test_no_value_of_any_file_is_markup_on_a_page(run: Path, change: Any) -> None:
    for file in [*run.glob("*.json"), *run.glob("evals/*.json")]:
        if file.name != "manifest.json":
            file.write_text(json.dumps(change(json.loads(file.read_text()))))
    for file in run.glob("*.jsonl"):
        rows = [texts_only(json.loads(line)) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({**row, f"loss_{BAD}": 1.0, f"loss_2{BAD}": 2.0}) + "\n" for row in rows))
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("column: text", f"column: '{BAD}'"))
    RunDir(run).seal()
    for own in (run, shutil.copytree(run, run.parent / f"named {BAD.replace('/', '')}")):
        if main(["report", str(own)]) == 0:
            page = (own / "report.html").read_text()
            assert "<img src=x" not in page
            assert "&lt;img src=x" in page


def test_the_page_of_a_run_that_is_not_trusted_shows_its_settings_as_text(run: Path) -> None:
    (run / "config.yaml").write_text(as_yaml({"recipe": f"evil.{BAD}", "train": BAD, "data": [BAD], BAD: 1}))
    RunDir(run).seal()
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "names code of its own" in page
    assert "<img src=x" not in page


def test_a_page_forbids_all_that_it_does_not_need(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r'<script|\sstyle="|\son\w+=', page)
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_results_of_a_study_are_checked_before_they_are_shown(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"kind": "ablate", "seeds": ["../../x"], "jobs": 1}))
    with pytest.raises(UserError, match=r"results\.json is damaged: seeds\.0: input should be a valid integer"):
        study_page(tmp_path)


def test_any_json_value_may_be_read_where_any_is_meant(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[1, {"a": null}]')
    assert read_json(tmp_path / "a.json") == [1, {"a": None}]


def test_an_empty_state_that_is_sealed_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = run / "checkpoints" / "step-000002"
    (newest / checkpoint.STATE).write_bytes(b"")
    write_manifest(newest, [newest / checkpoint.STATE, newest / checkpoint.WEIGHTS])
    assert main(["train", "--resume", str(run), "--no-eval"]) == 2
    assert f"{newest / checkpoint.STATE} cannot be loaded into this optimizer: " in capsys.readouterr().err
