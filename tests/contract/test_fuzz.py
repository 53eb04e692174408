"""Settings, data files and run folders of every kind of damage: success, or one clear line; nothing else.

Hypothesis draws the same examples each time. OPENJEPA_FUZZ=full draws 2,000 settings, 500 files and 200 folders.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import openjepa
from openjepa.cli import main
from openjepa.core import hub
from openjepa.core.configure import configure
from openjepa.core.describe import lower_settings
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext
from openjepa.core.manifest import write_manifest
from openjepa.core.rundir import RunDir
from openjepa.data.files.discovery import STREAMS, TABLES
from openjepa.data.files.records import Counts
from openjepa.data.text.sources import DataConfig, documents
from openjepa.encoding.rows import text_rows
from openjepa.models.room import built

FULL = os.environ.get("OPENJEPA_FUZZ") == "full"
LONGEST_S = 10.0
RECIPES = ("t_jepa", "nano_jepa", "lang_jepa", "i_jepa", "vl_jepa", "lejepa", "baselines/mlm", "baselines/simclr")
SIZES = ("data.documents", "data.images", "data.questions", "data.world_documents", "data.world_images")
TEXTS = [f"a story about number {n} . it ends here ." for n in range(60)]


def drawn(full: int, few: int) -> Any:
    """The examples of a test; a failing one is not made smaller, which would take minutes."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=full if FULL else few,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=checks,
    )


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(hub, "absence", lambda: hub.OFFLINE)
        yield


NUMBERS = ["0", "-1", "1", "3", "64", "1e5", "1e12", "100000000000", "1e308", "-1e-300", "0.5", "nan", "9" * 40]
WORDS = ["", " ", "none", "null", "true", "no", "adamw", "stories", "../x", "a b", "é\u2028\x07", "x" * 3000, "~"]
SHAPES = [
    "[]",
    "[1, a]",
    "[[1]]",
    "{}",
    "{a: 1}",
    "{a: {b: []}}",
    "[0.9, 0.95]",
    "[",
    "{",
    "'",
    '"x',
    "&a [*a]",
    "!!x y",
]
FUNCTIONS = ["math:sqrt", "math:pi", "nowhere:f", "os:getcwd", ":", "a:", ":b", "json:dumps", "torch:relu"]
VALUES = st.one_of(*map(st.sampled_from, (NUMBERS, WORDS, SHAPES, FUNCTIONS)), st.text(max_size=8))


@st.composite
def settings_of_a_recipe(draw: st.DrawFn) -> tuple[str, list[str]]:
    recipe = draw(st.sampled_from(RECIPES))
    keys = [*configure(recipe)[0].Config.keys()]
    chosen = draw(st.lists(st.one_of(st.sampled_from(keys), st.text(max_size=5)), min_size=1, max_size=4))
    return recipe, [f"{key}={draw(VALUES)}" for key in chosen]


@pytest.mark.timeout(1800)
@drawn(2000, 80)
@given(settings_of_a_recipe(), st.booleans())
def test_settings_build_something_or_are_one_line(
    tmp_path_factory: pytest.TempPathFactory, given: tuple[str, list[str]], in_a_file: bool
) -> None:
    recipe, overrides = given
    folder = tmp_path_factory.mktemp("settings")
    file = folder / "config.yaml"
    file.write_text("\n".join(item.replace("=", ": ", 1) for item in overrides), encoding="utf-8")
    fixed = [f"{key}={len(TEXTS)}" for key in SIZES if key in [*configure(recipe)[0].Config.keys()]]
    began = time.monotonic()
    try:
        if in_a_file:
            module, config = configure(recipe, config=file, overrides=fixed)
        else:
            module, config = configure(recipe, overrides=[*fixed, *overrides])
        built(lambda: module.build(config, BuildContext(folder / "assets")), lower_settings(config))
    except UserError as error:
        assert_one_line(str(error))
    assert time.monotonic() - began < LONGEST_S
    shutil.rmtree(folder)


def assert_one_line(message: str) -> None:
    """What the command line prints of it has words, is one line, and is not endless."""
    line = " ".join(message.split())
    assert 10 < len(line) < 20_000


ROWS = {
    "txt": "\n".join(TEXTS),
    "jsonl": "\n".join(json.dumps({"text": text, "label": "a"}) for text in TEXTS),
    "json": json.dumps([{"text": text} for text in TEXTS], indent=1),
    "csv": "text,label\n" + "\n".join(f'"{text}",b' for text in TEXTS),
    "tsv": "text\tlabel\n" + "\n".join(f"{text}\tb" for text in TEXTS),
    "markdown": "# Title\n\n" + "\n\n".join(TEXTS),
    "html": "<html><body>" + "".join(f"<p>{text}</p>" for text in TEXTS) + "</body></html>",
}
PIECES = [
    b"\0" * 2000, b"\xff\xfe\xfd", b"\\ud83d", b"9" * 5000, b'"', b"[" * 3000, b"{", b"\r", b"\n\n", b"<", b"PAR1",
]  # fmt: skip


def whole(suffix: str, kind: str, folder: Path) -> bytes:
    """A file of this kind without damage."""
    if kind in ("parquet", "arrow"):
        import pyarrow as pa
        import pyarrow.feather
        import pyarrow.parquet

        file = folder / "whole"
        table = pa.table({"text": TEXTS, "label": ["a"] * len(TEXTS)})
        if kind == "parquet":
            pyarrow.parquet.write_table(table, file)
        else:
            pyarrow.feather.write_feather(table, file, compression="uncompressed")
        return file.read_bytes()
    if kind == "xlsx":
        return b"PK\x03\x04" + b"\0" * 60
    raw = ROWS[kind].encode()
    return gzip.compress(raw) if suffix.endswith(".gz") else raw


CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "drop"]), st.floats(0, 1), st.sampled_from(PIECES)), max_size=3
)


def damaged(raw: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes after these changes, each at a part of their length."""
    for how, part, piece in changes:
        at = int(part * max(0, len(raw) - 1))
        match how:
            case "flip":
                raw = raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :] if raw else raw
            case "cut":
                raw = raw[:at]
            case "insert":
                raw = raw[:at] + piece + raw[at:]
            case "drop":
                raw = raw[:at] + raw[at + len(piece) :]
    return raw


SUFFIXES = [*STREAMS.items(), *TABLES.items(), *((f"{suffix}.gz", kind) for suffix, kind in STREAMS.items())]


@pytest.mark.timeout(1800)
@drawn(500, 60)
@given(st.sampled_from(SUFFIXES), CHANGES, st.booleans())
def test_data_files_are_read_or_are_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[str, str], changes: list, after: bool
) -> None:
    folder = tmp_path_factory.mktemp("data")
    suffix, name = kind
    raw = whole(suffix, name, folder)
    if after or not suffix.endswith(".gz"):
        raw = damaged(raw, changes)
    else:
        raw = gzip.compress(damaged(ROWS[name].encode(), changes))
    file = folder / f"docs{suffix}"
    file.write_bytes(raw)
    began, found = time.monotonic(), []
    source = DataConfig(source=str(file))
    for read in (lambda to: documents(source, counts=to), lambda to: text_rows(str(file), counts=to)):
        counts = Counts()
        try:
            found = list(read(counts))
        except UserError as error:
            assert_one_line(str(error))
    kept = counts["texts"]
    assert len(found) >= kept, "each row of a file has a row, whatever is in it"
    assert time.monotonic() - began < LONGEST_S
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few kilobytes, with all that a run can have."""
    folder = tmp_path_factory.mktemp("made")
    rows = [{"text": text, "label": str(number % 2)} for number, text in enumerate(TEXTS)]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    small = {"encoder": {"dim": 16, "depth": 1, "heads": 2, "max_len": 16}, "predictor": {"width": 16, "heads": 2}}
    trained = openjepa.train(
        "t_jepa",
        data={"source": str(folder / "docs.jsonl"), "label": "label", "eval_fraction": 0.3},
        steps=2,
        health_every=1,
        checkpoint_every=1,
        workers=0,
        out=folder / "run",
        progress=False,
        **small,
    )
    trained.evaluate()
    measured = trained.similar(["a story", "another"], TEXTS)
    trained.add_to_summary({"semantic": {**measured, "labels": ["one", "other"]}})
    return folder / "run"


HOSTILE: list[Any] = [
    None, True, -1, 0, 3.5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "<img src=x onerror=alert(1)>", "[/b]",
    "../../x", [], [1], ["a"], {}, {"a": 1}, "step-abc", [[[[[]]]]],
]  # fmt: skip
FILE = st.sampled_from(
    ["config.yaml", "env.json", "summary.json", "metrics.jsonl", "health.jsonl", "manifest.json", "evals/default.json",
     "checkpoints/best.json", "assets/tokenizer.json", "checkpoints/step-000002/manifest.json",
     "checkpoints/step-000002/model.safetensors", "checkpoints/step-000002/state.pt", "checkpoints/step-000002",
     "checkpoints", "assets", "evals"]
)  # fmt: skip
HOW = st.sampled_from(["bytes", "value", "value", "value", "gone", "folder", "empty"])
HARM = st.tuples(FILE, HOW, CHANGES, st.floats(0, 1), st.sampled_from(HOSTILE))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value, as a container and a key of it."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def harm(file: Path, how: str, changes: list, part: float, hostile: Any) -> None:
    if how == "gone":
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    elif how == "folder" and file.is_file():
        file.unlink()
        file.mkdir()
    elif how == "empty" and file.is_file():
        file.write_bytes(b"")
    elif how == "value" and file.is_file() and file.suffix in (".json", ".jsonl", ".yaml"):
        text = file.read_text()
        lines = text.splitlines() if file.suffix == ".jsonl" else [text]
        at = int(part * (len(lines) - 1))
        value = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(lines[at])
        found = [*places([value])]
        container, key = found[int(part * 7919 * len(found)) % len(found)]
        container[key] = hostile
        if container == [hostile]:
            value = hostile
        lines[at] = yaml.safe_dump(value) if file.suffix == ".yaml" else json.dumps(value)
        file.write_text("\n".join(lines) + "\n")
    elif file.is_file():
        file.write_bytes(damaged(file.read_bytes(), changes))


def sealed(run: Path) -> None:
    """Checksums of the files as they are, as a stranger would make them."""
    if (run / "config.yaml").is_file() and not (run / "manifest.json").is_dir():
        RunDir(run).seal()
    for folder in run.glob("checkpoints/step-*"):
        if folder.is_dir() and not (folder / "manifest.json").is_dir():
            files = [file for file in folder.iterdir() if file.is_file() and file.name != "manifest.json"]
            write_manifest(folder, files)


def outside(folder: Path) -> set[tuple[Path, int]]:
    """The files beside the run, with their sizes."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_relative_to(folder / "run")]
    return {(file, file.stat().st_size) for file in files}


VERBS = {
    "similar": ["similar", "{run}", "a story", "another"],
    "diagnose": ["diagnose", "{run}"],
    "report": ["report", "{run}"],
    "embed": ["embed", "{run}", "{run}/../texts.txt", "--out", "{run}/vectors.npy"],
    "eval": ["eval", "{run}"],
    "masks": ["masks", "{run}"],
    "resume": ["train", "--resume", "{run}", "--no-eval"],
}
TOGETHER = [("similar", "diagnose", "report"), ("embed", "eval", "masks", "resume")]


@pytest.mark.timeout(1800)
@drawn(200, 6)
@given(st.lists(HARM, min_size=1, max_size=3), st.booleans(), st.sampled_from(TOGETHER))
def test_damaged_runs_open_or_are_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    run: Path,
    harms: list,
    seal: bool,
    verbs: tuple[str, ...],
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    copy = shutil.copytree(run, folder / "run")
    (folder / "texts.txt").write_text("a story\nanother\n")
    for file, *how in harms:
        if (copy / file).exists():
            try:
                harm(copy / file, *how)
            except (ValueError, yaml.YAMLError):  # damaged already
                continue
    if seal:
        sealed(copy)
    before = outside(folder)
    for verb in verbs:
        began = time.monotonic()
        code = main([word.format(run=copy) for word in VERBS[verb]])
        said = capsys.readouterr().err
        assert time.monotonic() - began < LONGEST_S, verb
        assert code in (0, 2), (verb, code, said)
        if code == 2:
            assert_one_line(said)
            assert said.splitlines()[-1].startswith("openjepa: ")
        assert all("<img src=x" not in page.read_text() for page in copy.glob("*.html"))
    assert outside(folder) == before
    shutil.rmtree(folder)
