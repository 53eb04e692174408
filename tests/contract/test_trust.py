"""Opening a run folder runs no code of it, unless its reader says so."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import openjepa
from openjepa.core.manifest import write_manifest
from openjepa.core.rundir import RunDir
from tests.forked import Forking, forking

EVIL = "import pathlib, os\npathlib.Path(os.environ['TRACE']).write_text('was run')\n"
PLAIN = EVIL + "from openjepa.recipes.t_jepa import Config, build\n"


class Evil:
    """Unpickling it runs code."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch trace",)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust") / "run"
    texts = [f"a story about number {n} . it ends here ." for n in range(80)]
    openjepa.train("t_jepa", data=texts, steps=2, health_every=2, out=folder, progress=False)
    return folder


def hostile(run: Path, folder: Path, way: str) -> Path:
    """A copy of the run that names code in one of the ways there are."""
    copy = folder / "run"
    shutil.copytree(run, copy)
    file = copy / "config.yaml"
    values = yaml.safe_load(file.read_text())
    (folder / "evil.py").write_text(PLAIN + "def f(*a, **k): ...\n")
    match way:
        case "recipe file":
            values["recipe"] = str(folder / "evil.py")
        case "copied recipe file":
            (copy / "assets" / "recipe.py").write_text(PLAIN)
        case "module":
            values["recipe"] = "evil.sub"
            (folder / "evil").mkdir()
            (folder / "evil" / "__init__.py").write_text(EVIL)
            (folder / "evil" / "sub.py").write_text(PLAIN)
        case "optimizer":
            values["train"]["optimizer"] = "evil:f"
        case "target":
            values["target"]["norm"] = "evil:f"
        case "regularizer":
            values["regularizer"]["name"] = "evil:f"
        case "pickled state":  # what torch and numpy load could run code
            (copy / "checkpoints" / "step-000002" / "state.pt").write_bytes(pickle.dumps(Evil()))
            (copy / "checkpoints" / "step-000002" / "model.safetensors").write_bytes(pickle.dumps(Evil()))
            write_manifest(copy / "checkpoints" / "step-000002", (copy / "checkpoints" / "step-000002").iterdir())
        case "code of an encoder":
            values["encoder"] |= {"name": str(folder / "evil"), "weights": False}
            base = copy / "assets" / "encoder"
            base.mkdir()
            code = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
            (base / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": code}))
            (base / "evil.py").write_text(EVIL)
        case "yaml":
            values["objective"] = "!!python/object/apply:os.system [touch trace]"
        case _:
            values["objective"] = "evil:f"
    file.write_text(yaml.safe_dump(values).replace("'!!python", "!!python").replace("trace]'", "trace]"))
    RunDir(copy).seal()  # as its stranger would: checksums guard against damage, not against strangers
    return copy


WAYS = [
    "recipe file",
    "copied recipe file",
    "module",
    "objective",
    "optimizer",
    "target",
    "regularizer",
    "pickled state",
    "code of an encoder",
    "yaml",
]
NAMED = ("recipe file", "copied recipe file", "module", "objective", "regularizer")  # what is built has them
VERBS = {
    "similar": ["similar", "{run}", "a story", "another"],
    "embed": ["embed", "{run}", "{texts}", "--out", "{out}.npy"],
    "eval": ["eval", "{run}"],
    "export": ["export", "{run}", "--to", "sentence-transformers", "--out", "{out}"],
    "masks": ["masks", "{run}", "--out", "{out}.html"],
    "report": ["report", "{run}", "--out", "{out}.html"],
    "diagnose": ["diagnose", "{run}"],
    "readout": ["readout", "{run}"],
    "resume": ["train", "--resume", "{run}"],
    "config move": ["config", "move", "{run}", "data.source={texts}"],
    "demo": ["demo", "{run}", "{out}"],  # the second is no run, so that nothing is served
}


@pytest.fixture(scope="module")
def command() -> Iterator[Forking]:
    with forking() as ready:
        yield ready


def cli(command: Forking, folder: Path, run: Path, verb: str, *more: str) -> tuple[int, str, bool]:
    """Exit code, stderr, and whether the code of the folder was run."""
    (folder / "texts.txt").write_text("a story\nanother\n")
    names = {"run": run, "texts": folder / "texts.txt", "out": folder / "out"}
    words = [word.format(**names) for word in VERBS[verb]]
    done = command([*words, *more], folder, {**os.environ, "TRACE": str(folder / "trace")}, path=[str(folder)])
    return done.code, done.err, (folder / "trace").exists()


@pytest.mark.parametrize("way", WAYS)
def test_no_verb_runs_what_a_folder_names(command: Forking, run: Path, tmp_path: Path, way: str) -> None:
    copy = hostile(run, tmp_path, way)
    code, said, was_run = cli(command, tmp_path, copy, "similar")
    assert not was_run
    if way in ("optimizer", "target"):  # nothing is trained
        assert code == 0
        return
    assert code == 2
    assert said.count("\n") == 1
    if way in NAMED:
        assert "names code of its own" in said
        assert "--trust-code" in said


@pytest.mark.slow
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "similar"])
@pytest.mark.parametrize("way", ["copied recipe file", "objective"])
def test_no_other_verb_does_either(command: Forking, run: Path, tmp_path: Path, verb: str, way: str) -> None:
    code, said, was_run = cli(command, tmp_path, hostile(run, tmp_path, way), verb)
    assert not was_run
    reads_files_only = verb in ("report", "diagnose") or (verb, way) == ("config move", "objective")  # nothing is built
    assert code == (0 if reads_files_only else 2)
    assert "Traceback" not in said


@pytest.mark.parametrize("way", ["copied recipe file", "objective"])
def test_with_trust_the_code_is_run(command: Forking, run: Path, tmp_path: Path, way: str) -> None:
    _, said, was_run = cli(command, tmp_path, hostile(run, tmp_path, way), "similar", "--trust-code")
    assert was_run
    assert "names code of its own" not in said


@pytest.mark.parametrize("verb", ["config move", "demo"])
def test_every_verb_that_opens_a_run_can_be_told_to_trust_it(
    command: Forking, run: Path, tmp_path: Path, verb: str
) -> None:
    copy = hostile(run, tmp_path, "copied recipe file")
    _, said, was_run = cli(command, tmp_path, copy, verb)
    assert not was_run
    assert "--trust-code" in said
    code, said, was_run = cli(command, tmp_path, copy, verb, "--trust-code")
    assert was_run
    assert "names code of its own" not in said
    assert code == (2 if verb == "demo" else 0)
