"""Several runs on one page of the demo, and a training that is still going on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import openjepa
from openjepa.api import Run
from openjepa.cli import main
from openjepa.demo import render_training
from openjepa.demo.render_training import duration
from openjepa.demo.runs import ShownRun, names_of
from openjepa.demo.similar_texts import SimilarTexts
from openjepa.demo.training import SILENT_S, Training, speed_of
from tests.tiny import TINY

STEPS = (
    "train.steps=8",
    "train.warmup_steps=1",
    "train.log_every=2",
    "train.health_every=4",
    "train.checkpoint_every=8",
    "data.eval_fraction=0.2",
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "corpus.txt"
    words = ["wave", "harbour", "sail", "fish", "salt", "tide", "anchor", "crew", "gull", "storm", "soup", "oven"]
    lines = (" ".join(words[(n * k) % len(words)] for k in range(3, 12)) + f" number {n}.\n" for n in range(120))
    file.write_text("".join(lines))
    return file


@pytest.fixture(scope="module")
def trained(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run on a file of texts."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(folder / "cache"))
        settings = [*TINY, *STEPS, f"data.source={texts}"]
        openjepa.train("t_jepa", out=folder / "run", overrides=settings, progress=False)
        yield folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy of it, to be taken apart."""
    shutil.copytree(trained, tmp_path / "run")
    return openjepa.load(tmp_path / "run")


def test_runs_of_one_name_are_told_apart_by_the_folders_above_them() -> None:
    paths = [Path(path) for path in ("/x/a/first", "/x/b/first", "/y/b/first", "/x/second")]
    assert names_of(paths) == ["a/first", "x/b/first", "y/b/first", "second"]
    assert names_of([Path("/x/first")]) == ["first"]


def test_the_verb_names_the_run_that_cannot_be_opened_before_anything_is_served(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio")
    assert main(["demo", str(run.path), str(tmp_path / "none")]) == 2
    assert "none is not a run folder" in capsys.readouterr().err
    weights = next((run.path / "checkpoints").glob("step-*")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert main(["demo", str(run.path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert f"{run.path} cannot be shown: " in said[-1]
    assert "model.safetensors is damaged" in said[-1]


def test_a_run_whose_data_has_gone_is_refused_with_a_way_to_mend_it(
    run: Run, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio")
    moved = texts.rename(texts.with_name("moved.txt"))
    try:
        assert main(["demo", str(run.path)]) == 2
        said = capsys.readouterr().err
        assert f"{run.path} cannot be shown: data.source={texts}" in said
        assert "openjepa config move" in said
    finally:
        moved.rename(texts)


def test_a_run_without_a_checkpoint_gets_its_panels_once_it_has_one(run: Run, tmp_path: Path) -> None:
    checkpoints = run.path / "checkpoints"
    checkpoints.rename(tmp_path / "later")
    checkpoints.mkdir()
    shown = ShownRun(run, "run")
    assert not shown.open()
    assert (shown.step, shown.panels) == (None, [])
    checkpoints.rmdir()
    (tmp_path / "later").rename(checkpoints)
    assert shown.open()
    assert shown.step == 8
    assert [type(panel) for panel in shown.panels] == [SimilarTexts]
    panels = shown.panels
    assert shown.open()
    assert shown.panels is panels, "they are opened once"


def test_a_torn_or_damaged_last_line_is_skipped(run: Run) -> None:
    whole = Training(run).state()
    assert [row["step"] for row in whole.logs.metrics] == [2, 4, 6, 8]
    (run.path / "summary.json").unlink()
    for log in ("metrics.jsonl", "health.jsonl"):
        lines = (run.path / log).read_bytes().splitlines(keepends=True)
        for torn in (lines[-1][:25], b"\xff\xfe\x00garbage", b"\n"):
            (run.path / log).write_bytes(b"".join(lines[:-1]) + torn)
            Training(run).state()
    state = Training(run).state()
    assert [row["step"] for row in state.logs.metrics] == [2, 4, 6]
    assert [row["step"] for row in state.logs.health] == [row["step"] for row in whole.logs.health][:-1]
    assert "Step <b>6</b> of 8" in render_training.progress(state)
    assert "<svg" in render_training.charts(state)


def rows(count: int, seconds_a_step: float) -> list[dict[str, float]]:
    """Log lines every ten steps of 500 tokens."""
    return [{"step": 10 * n, "tokens": 5000, "tokens_per_s": 500 / seconds_a_step} for n in range(1, count + 1)]


def test_speed_and_time_left_of_known_log_lines(run: Run) -> None:
    assert speed_of(rows(5, 0.5)) == (pytest.approx(1000), pytest.approx(0.5))
    slow_at_first = [*rows(50, 4.0)[:25], *rows(50, 0.5)[25:]]
    assert speed_of(slow_at_first) == (pytest.approx(1000), pytest.approx(0.5)), "recent lines count"
    assert speed_of(rows(1, 0.5)) == (pytest.approx(1000), None), "one line does not tell how long a step takes"
    assert speed_of([]) == (None, None)
    (run.path / "summary.json").unlink()
    lines = [{"step": n, "tokens": 100, "tokens_per_s": 50, "loss": 1.0} for n in (2, 4)]  # a second a step
    run.folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.folder.health.unlink()
    state = Training(run).state()
    assert state.left_s == pytest.approx(4.0)
    assert "Step <b>4</b> of 8, 50 tokens/s, about 4 s left." in render_training.progress(state)


def test_a_run_that_is_silent_for_long_may_have_stopped(run: Run) -> None:
    written = run.folder.metrics.stat().st_mtime
    finished = Training(run, clock=lambda: written + 10 * SILENT_S).state()
    assert not finished.may_have_stopped
    assert "training has ended" in render_training.progress(finished)
    (run.path / "summary.json").unlink()
    assert not Training(run, clock=lambda: written + SILENT_S - 1).state().may_have_stopped
    silent = Training(run, clock=lambda: written + SILENT_S + 20).state()
    assert silent.may_have_stopped
    assert "no log line for 10 min 20 s: training may have stopped" in render_training.progress(silent)


def test_charts_are_drawn_again_only_when_a_file_has_changed(run: Run) -> None:
    training = Training(run)
    before = training.signature()
    assert training.signature() == before
    with run.folder.metrics.open("a") as file:
        file.write("{")
    assert training.signature() != before
    os.utime(run.folder.health, ns=(1, 1))
    assert training.signature() not in (before, ())


def test_a_run_without_a_log_line_says_so(run: Run) -> None:
    for log in (run.folder.metrics, run.folder.health, run.folder.summary):
        log.unlink()
    state = Training(run).state()
    assert "Step <b>0</b> of 8, waiting for log lines." in render_training.progress(state)
    assert "nothing is logged yet" in render_training.charts(state)


def test_what_a_log_says_is_escaped(run: Run) -> None:
    record = {**run.health()[-1], "status": "not judged", "evidence": "<script>alert(1)</script>"}
    run.folder.health.write_text(json.dumps(record) + "\n")
    html = render_training.charts(Training(run).state())
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in html + render_training.unreadable("<script>")


def test_times_in_words() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 200, 7500)] == ["0 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]
