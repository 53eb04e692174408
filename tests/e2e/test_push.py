"""A run is pushed to a loopback hub and opened from there, by openjepa and by sentence-transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openjepa
from tests.hub import serving

pytest.importorskip("sentence_transformers")

NAME = "someone/stories"
TEXTS = ["the ferry left at nine .", "boxes were counted in spring .", ""]
PUSH = "import sys; from openjepa.cli import main; sys.exit(main(sys.argv[1:]))"
OPEN = """
import json, sys, openjepa
from sentence_transformers import SentenceTransformer
texts = json.loads(sys.argv[2])
run = openjepa.load(sys.argv[1])
other = SentenceTransformer(sys.argv[1], device="cpu").encode(texts[:2])
print(json.dumps([run.encode(texts).tolist(), other.tolist(), repr(run), str(run.path), run.health()[-1]["step"]]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    folder = tmp_path_factory.mktemp("push")
    corpus = folder / "secret place" / "corpus.txt"
    corpus.parent.mkdir()
    corpus.write_text("\n".join(f"the ferry number {n} left at nine . boxes were counted ." for n in range(200)))
    trained = openjepa.train("t_jepa", data=str(corpus), steps=2, health_every=2, out=folder / "run", progress=False)
    return trained.to("cpu", "32")


def environment(hub: dict[str, str], cache: Path, **more: str) -> dict[str, str]:
    return {**os.environ, **hub, "HF_HOME": str(cache), "HF_TOKEN": "writes", "PYTHONWARNINGS": "ignore", **more}


def python(code: str, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, check=False)


def test_a_pushed_run_opens_from_the_hub(run: openjepa.Run, tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    received: list[Any] = []
    with serving(NAME, files, "models", received) as hub:
        command = ["push", str(run.path), NAME, "--licence", "mit", "--yes", "--json"]
        pushed = python(PUSH, *command, env=environment(hub, tmp_path / "a"))
        assert pushed.returncode == 0, pushed.stderr
        assert set(json.loads(pushed.stdout)["files"]) == set(files)
        opened = python(OPEN, NAME, json.dumps(TEXTS), env=environment(hub, tmp_path / "b"))
        assert opened.returncode == 0, opened.stderr
    assert received == [{"name": "stories", "organization": "someone", "visibility": "private"}]
    ours, theirs, shown, path, step = json.loads(opened.stdout)
    expected = run.encode(TEXTS)
    np.testing.assert_array_equal(np.array(ours, dtype=np.float32), expected)
    np.testing.assert_allclose(theirs, expected[:2], atol=1e-5)
    assert (step, path.startswith(str(tmp_path / "b"))) == (2, True)
    assert shown.startswith("Run(t_jepa, step 2")
    for name, body in files.items():
        assert b"secret place" not in body, name  # where the data lay is nobody's business
        assert not name.endswith((".pt", "env.json"))
    assert b"license: mit" in files["README.md"]


def test_nothing_is_sent_without_being_asked_for(run: openjepa.Run, tmp_path: Path) -> None:
    received: list[Any] = []
    with serving(NAME, {}, "models", received) as hub:
        env = environment(hub, tmp_path)
        unasked = python(PUSH, "push", str(run.path), NAME, env=env)
        stranger = python(PUSH, "push", str(run.path), NAME, "--yes", env={**env, "HF_TOKEN": "reads"})
    assert (unasked.returncode, stranger.returncode, received) == (2, 2, [])
    assert "add --yes" in unasked.stderr
    assert "hf auth login" in stranger.stderr
    assert stranger.stderr.count("\n") == 1
    offline = python(PUSH, "push", str(run.path), NAME, "--yes", env={**env, "HF_HUB_OFFLINE": "1"})
    assert (offline.returncode, "nothing was published" in offline.stderr) == (2, True)
    unnamed = python(PUSH, "push", str(run.path), "stories", "--yes", env=env)
    assert (unnamed.returncode, "give owner/name" in unnamed.stderr) == (2, True)


def test_what_is_no_run_on_the_hub_is_told(tmp_path: Path) -> None:
    with serving(NAME, {"config.json": b"{}"}, "models") as hub:
        env = environment(hub, tmp_path)
        other = python(PUSH, "similar", NAME, "a", "b", env=env)
        absent = python(PUSH, "similar", "someone/else", "a", "b", env=env)
    assert (other.returncode, absent.returncode) == (2, 2)
    assert "holds no run of OpenJEPA" in other.stderr
    assert "someone/else is not a run folder here, and the hub" in absent.stderr
    assert absent.stderr.count("\n") == 1
