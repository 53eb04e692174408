"""Verbs that read a run do not leave its folder without a word, and fetch nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import openjepa
from openjepa.cli import main
from openjepa.core import hub, inside
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext
from openjepa.core.inside import require_inside
from openjepa.core.manifest import write_manifest
from openjepa.core.rundir import RunDir


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and beside it the file that it was trained on."""
    folder = tmp_path_factory.mktemp("inside")
    rows = [{"text": f"a story about number {n} . it ends here ."} for n in range(80)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {"encoder": {"dim": 16, "depth": 1, "heads": 2}, "predictor": {"width": 16}, "workers": 0}
    data = str(folder / "docs.jsonl")
    openjepa.train("t_jepa", data=data, steps=2, out=folder / "run", progress=False, **small)
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it in another process, so to say."""
    monkeypatch.setattr(inside, "_named", set())
    return shutil.copytree(made, tmp_path / "run")


def test_data_outside_of_the_folder_is_read_and_named_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["similar", str(run), "a story", "another"]) == 0
    said = capsys.readouterr().err
    assert said.count("openjepa: reads data.source=") == 1
    assert f"docs.jsonl, which {run} names and which is outside of it" in said


def test_what_the_user_of_the_process_has_named_is_not_said(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "_named", {str(made.parent / "docs.jsonl")})
    assert main(["similar", str(made), "a story", "another"]) == 0
    assert "reads data.source" not in capsys.readouterr().err


LINKED = ["config.yaml", "assets", "assets/tokenizer.json", "checkpoints", "checkpoints/step-000002/model.safetensors"]


@pytest.mark.parametrize("linked", [*LINKED, "evals", "health.jsonl"])
def test_a_link_that_leads_out_is_refused_in_one_line(
    run: Path, tmp_path: Path, linked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(run / linked, elsewhere)
    (run / linked).symlink_to(elsewhere)
    for verb in (["similar", run, "a", "b"], ["report", run], ["diagnose", run]):
        assert main([str(word) for word in verb]) == 2
        said = capsys.readouterr().err
        assert f"{run / linked} is a link that leads out of the run folder, to {elsewhere}" in said
        assert said.count("\n") == 1


def test_links_within_a_folder_to_it_and_of_the_hubs_cache_are_followed(run: Path, tmp_path: Path) -> None:
    shutil.move(run / "env.json", run / "assets" / "env.json")
    (run / "env.json").symlink_to(Path("assets") / "env.json")
    (tmp_path / "link").symlink_to(run)
    assert RunDir.open(tmp_path / "link").environment()["versions"]
    cached = tmp_path / "models--owner--name"
    (cached / "blobs").mkdir(parents=True)
    (cached / "blobs" / "1").write_text("{}")
    snapshot = cached / "snapshots" / "1" / "openjepa"
    snapshot.mkdir(parents=True)
    (snapshot / "config.yaml").symlink_to(cached / "blobs" / "1")
    require_inside(snapshot, ["config.yaml"])
    (snapshot / "env.json").symlink_to(tmp_path / "link")
    with pytest.raises(UserError, match="leads out"):
        require_inside(snapshot, ["env.json"])


@pytest.mark.parametrize("name", ["owner/name", "elsewhere"])
def test_a_finished_run_fetches_no_encoder_and_makes_no_tokenizer(
    run: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hub, "absence", lambda: asked.append("hub"))
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("name: null", f"name: {name}", 1))
    RunDir(run).seal()
    assert main(["similar", str(run), "a story", "another"]) == 2
    assert "assets/encoder/config.json is gone, and is not made or fetched again" in capsys.readouterr().err
    (run / "config.yaml").write_text(text)
    (run / "assets" / "tokenizer.json").unlink()
    write_manifest(run, [run / "config.yaml"])
    assert main(["similar", str(run), "a story", "another"]) == 2
    assert "tokenizer.json is gone, and is not made or fetched again" in capsys.readouterr().err
    assert not asked


def test_the_first_build_of_a_run_may_fetch(tmp_path: Path) -> None:
    assert BuildContext(tmp_path).kept("encoder", weights=True) is None
    assert BuildContext(tmp_path).asset("tokenizer.json") == tmp_path / "tokenizer.json"
