"""A disk that is full, or a folder that cannot be written, is one line; what was saved before is not touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from openjepa import api
from openjepa.cli import main
from openjepa.training import checkpoint
from openjepa.training.lock import LOCK
from tests.contract.test_resume import SETTINGS, assert_same_run
from tests.faults import contents, full_disk, read_only

VERBS = {  # the words, and the size in bytes that no file may exceed
    "embed": (["embed", "{run}", "{texts}", "--out", "{out}/vectors.npy"], 20_000),
    "embed to Parquet": (["embed", "{run}", "{texts}", "--out", "{out}/vectors.parquet"], 20_000),
    "export": (["export", "{run}", "--to", "transformers", "--out", "{out}/exported"], 20_000),
    "report": (["report", "{run}", "--out", "{out}/report.html"], 20_000),
    "eval": (["eval", "{run}", "--sts", "pairs={pairs}"], 100),
    "masks": (["masks", "{run}", "--out", "{out}/masks.html"], 2_000),
    "config copy": (["config", "copy", "t_jepa", "{out}/mine.yaml"], 100),
    "config move": (["config", "move", "{run}", "data.source={texts}"], 100),
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return api.train("t_jepa", out=tmp_path_factory.mktemp("runs") / "straight", overrides=SETTINGS, progress=False)


@pytest.fixture
def folder(straight: api.Run, tmp_path: Path) -> Path:
    """A run, texts, and a folder that outputs go to, with something in it."""
    shutil.copytree(straight.path, tmp_path / "run")
    (tmp_path / "texts.txt").write_text("".join(f"text {number} of some words\n" for number in range(400)))
    pairs = "".join(f"text {n} of words,text {n + n % 3} of words,{n % 5}\n" for n in range(40))
    (tmp_path / "pairs.csv").write_text(f"sentence1,sentence2,score\n{pairs}")
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out" / "vectors.npy", np.zeros((2, 2)))
    (tmp_path / "out" / "report.html").write_text("<p>an earlier one</p>")
    return tmp_path


def words_of(verb: str, folder: Path) -> list[str]:
    names = {"run": folder / "run", "texts": folder / "texts.txt", "out": folder / "out", "pairs": folder / "pairs.csv"}
    return [word.format(**names) for word in VERBS[verb][0]]


def visible(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if not name.endswith(LOCK)}


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_one_line_and_leaves_everything_as_it_was(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = visible(folder)
    capsys.readouterr()
    with full_disk(VERBS[verb][1]):
        assert main(words_of(verb, folder)) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("openjepa: cannot write ")
    assert "Traceback" not in said
    assert visible(folder) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_cannot_be_written_is_one_line(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = visible(folder)
    place = folder / "run" if "{run}" in VERBS[verb][0][-1] or verb == "config move" else folder / "out"
    place = folder / "run" / "evals" if verb == "eval" else place
    capsys.readouterr()
    with read_only(place):
        code = main(words_of(verb, folder))
    said = capsys.readouterr().err
    assert code == 2, said
    assert "this user may not write there" in said.splitlines()[-1]
    assert str(place) in said.splitlines()[-1]
    assert "Traceback" not in said
    assert visible(folder) == before


def test_training_on_a_full_disk_stops_and_goes_on_when_there_is_room(
    straight: api.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    size = max(file.stat().st_size for file in checkpoint.newest(straight.folder.checkpoints).iterdir())
    words = ["train", "t_jepa", *SETTINGS, "train.checkpoint_seconds=1e-9", "--out", str(run), "--no-eval"]
    with full_disk(size - 1000):
        assert main(words) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"openjepa: cannot write {run}/checkpoints/step-000001: ")
    assert f"openjepa train --resume {run}" in said
    assert "Traceback" not in said
    assert list((run / "checkpoints").iterdir()) == []
    assert main(["train", "--resume", str(run), "--no-eval"]) == 0
    assert_same_run(run, straight.path)


def test_a_full_disk_costs_no_checkpoint_that_was_saved_before(straight: api.Run, folder: Path) -> None:
    run = folder / "run"
    shutil.rmtree(checkpoint.newest(run / "checkpoints"))
    before = contents(run / "checkpoints")
    with full_disk(20_000):
        assert main(["train", "--resume", str(run), "--no-eval"]) == 2
    assert contents(run / "checkpoints") == before
    assert main(["train", "--resume", str(run), "--no-eval"]) == 0
    assert_same_run(run, straight.path)


def test_training_into_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with read_only(tmp_path):
        assert main(["train", "t_jepa", *SETTINGS, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said == f"openjepa: cannot write {tmp_path / 'run'}: this user may not write there; choose another folder\n"
