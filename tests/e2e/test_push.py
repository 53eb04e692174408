"""A run is pushed to a loopback hub and opened from there, by openjepa and by sentence-transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openjepa
from tests.forked import Done, forking
from tests.hub import serving

pytest.importorskip("sentence_transformers")

NAME = "someone/stories"
TEXTS = ["the ferry left at nine .", "boxes were counted in spring .", ""]
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


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Done]]:
    """Command lines in processes of their own, by the words and the environment."""
    folder = tmp_path_factory.mktemp("commands")
    with forking() as ready:
        yield lambda *words, env: ready(words, folder, env)


def opened_elsewhere(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", OPEN, NAME, json.dumps(TEXTS)]
    return subprocess.run(words, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, check=False)


def test_a_pushed_run_opens_from_the_hub(command: Callable[..., Done], run: openjepa.Run, tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    received: list[Any] = []
    with serving(NAME, files, "models", received) as hub:
        words = ["push", str(run.path), NAME, "--licence", "mit", "--yes", "--json"]
        pushed = command(*words, env=environment(hub, tmp_path / "a"))
        assert pushed.code == 0, pushed.err
        assert set(json.loads(pushed.out)["files"]) == set(files)
        opened = opened_elsewhere(environment(hub, tmp_path / "b"))
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


def test_nothing_is_sent_without_being_asked_for(
    command: Callable[..., Done], run: openjepa.Run, tmp_path: Path
) -> None:
    received: list[Any] = []
    with serving(NAME, {}, "models", received) as hub:
        env = environment(hub, tmp_path)
        unasked = command("push", str(run.path), NAME, env=env)
        stranger = command("push", str(run.path), NAME, "--yes", env={**env, "HF_TOKEN": "reads"})
    assert (unasked.code, stranger.code, received) == (2, 2, [])
    assert "add --yes" in unasked.err
    assert "hf auth login" in stranger.err
    assert stranger.err.count("\n") == 1
    offline = command("push", str(run.path), NAME, "--yes", env={**env, "HF_HUB_OFFLINE": "1"})
    assert (offline.code, "nothing was published" in offline.err) == (2, True)
    unnamed = command("push", str(run.path), "stories", "--yes", env=env)
    assert (unnamed.code, "give owner/name" in unnamed.err) == (2, True)


def test_what_is_no_run_on_the_hub_is_told(command: Callable[..., Done], tmp_path: Path) -> None:
    with serving(NAME, {"config.json": b"{}"}, "models") as hub:
        env = environment(hub, tmp_path)
        other = command("similar", NAME, "a", "b", env=env)
        absent = command("similar", "someone/else", "a", "b", env=env)
    assert (other.code, absent.code) == (2, 2)
    assert "holds no run of OpenJEPA" in other.err
    assert "someone/else is not a run folder here, and the hub" in absent.err
    assert absent.err.count("\n") == 1
