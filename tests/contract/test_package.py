"""What is handed to others: wheel, sdist, container, workflows and citation hold what they should, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

import openjepa
from openjepa.core.locate import built_in_recipes
from tests.docs.pages import ROOT

pytest.importorskip("build")
pytest.importorskip("hatchling")

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = ROOT / "src" / "openjepa"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHONS = ["3.11", "3.12", "3.13"]


def built(source: Path, out: Path, kind: str) -> Path:
    """A wheel or an sdist of a source folder, without a network."""
    words = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(out), str(source)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = out.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    files = {name for name in content(wheel) if ".dist-info/" not in name}
    there = [file for file in SOURCES.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert files == {f"openjepa/{file.relative_to(SOURCES).as_posix()}" for file in there}
    assert "openjepa/py.typed" in files
    for recipe in built_in_recipes():
        assert f"openjepa/configs/{recipe}/tiny.yaml" in files
    assert wheel.name == f"openjepa-{openjepa.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 2_000_000


def test_no_file_names_a_folder_of_this_machine(wheel: Path, sdist: Path) -> None:
    own = [str(ROOT), str(Path.home()) + "/", "/site-packages/"]
    with tarfile.open(sdist) as archive:
        members = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        texts = {name: file.read() for name, file in members.items() if file is not None}
    for name, data in [*content(wheel).items(), *texts.items()]:
        found = [folder for folder in own if folder.encode() in data and not name.endswith("test_package.py")]
        assert found == [], name


def test_the_sdist_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert content(built(source, tmp_path / "wheel", "wheel")) == content(wheel)
    for name in ("tests/tiny.py", "docs/index.md", "constraints.txt", "CITATION.cff", "Makefile", "LICENSE"):
        assert (source / name).is_file(), name
    left_out = {".venv", ".git", ".cache", "__pycache__", "runs", "site", "dist"}
    assert [file for file in source.rglob("*") if file.is_dir() and file.name in left_out] == []


def test_the_wheel_says_what_the_project_says(wheel: Path) -> None:
    (metadata,) = (data.decode() for name, data in content(wheel).items() if name.endswith("/METADATA"))
    head = metadata.partition("\n\n")[0].splitlines()
    assert "License-Expression: Apache-2.0" in head
    assert "Requires-Python: <3.14,>=3.11" in head
    assert [line.split(" :: ")[-1] for line in head if ":: Python :: 3." in line] == PYTHONS
    extras = {line.partition(": ")[2] for line in head if line.startswith("Provides-Extra")}
    assert {"text", "files", "track", "demo", "export", "docs", "dev"} <= extras
    assert not [line for line in head if line.startswith(("Home-page", "Project-URL"))]  # there is none yet


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the wheel in a folder of its own, before all else."""
    folder = tmp_path_factory.mktemp("installed")
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(folder), wheel]
    subprocess.run(words, check=True)
    return {**os.environ, "PYTHONPATH": str(folder), "INSTALLED": str(folder)}


def said(words: list[str], installed: dict[str, str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *words], env=installed, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_wheel_works_away_from_the_sources(installed: dict[str, str], tmp_path: Path) -> None:
    where = "import openjepa, openjepa.core.locate; print(openjepa.core.locate.__file__)"
    assert said(["-c", where], installed, tmp_path).startswith(installed["INSTALLED"])
    assert openjepa.__version__ in said(["-m", "openjepa", "--version"], installed, tmp_path)
    recipes = said(["-m", "openjepa", "recipes"], installed, tmp_path)
    assert [name for name in built_in_recipes() if name not in recipes] == []
    said(["-m", "openjepa", "config", "show", "t_jepa", "--preset", "paper"], installed, tmp_path)


@pytest.mark.slow
def test_the_installed_wheel_trains(installed: dict[str, str], tmp_path: Path) -> None:
    """With its own presets, lexicons and templates."""
    for recipe in ("t_jepa", "i_jepa", "nano_jepa"):
        words = [
            "-m",
            "openjepa",
            "train",
            recipe,
            "steps=1",
            "health_samples=1",
            "--no-eval",
            "--json",
            "--out",
            recipe,
        ]
        small = "data.images=60" if recipe == "i_jepa" else "data.documents=300"
        assert json.loads(said([*words, small], installed, tmp_path))["steps"] == 1


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == openjepa.__version__ == citation["version"]


def test_extras_are_pinned_and_named_where_they_are_missed() -> None:
    """Each package of an extra has its pin in constraints.txt, and each extra that a message names exists."""
    pins = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    for name, packages in extras.items():
        names = [re.split(r"[\[<>=;]", package)[0].strip().lower() for package in packages]
        assert [package for package in names if package not in pins and package != "openjepa"] == [], name
    pages = [*SOURCES.rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    named = {extra for page in pages for listed in re.findall(r"openjepa\[([\w,]+)\]", page.read_text())
             for extra in listed.split(",")}  # fmt: skip
    assert {"track", "export"} <= named <= set(extras)


def test_the_citation_has_the_fields_of_its_format() -> None:
    """https://citation-file-format.github.io, 1.2.0: what is required, and no key that it does not know."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation) <= {
        "cff-version", "message", "title", "abstract", "type", "authors", "version", "license", "keywords",
    }  # fmt: skip
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


def instructions(file: Path) -> list[tuple[str, str]]:
    """Of a Dockerfile: name and rest of each instruction, without comments, lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


DOCKERFILE = instructions(ROOT / "Dockerfile")
KNOWN = {"ARG", "FROM", "WORKDIR", "RUN", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}


def of(name: str) -> list[str]:
    return [rest for instruction, rest in DOCKERFILE if instruction == name]


def test_the_dockerfile_is_in_order() -> None:
    assert {name for name, _ in DOCKERFILE} <= KNOWN
    assert DOCKERFILE[0] == ("ARG", "BASE=python:3.12-slim")  # before FROM, so that it can stand there
    assert of("FROM") == ["python:3.12-slim AS build", "${BASE}"]
    declared = {argument.partition("=")[0] for argument in of("ARG")}
    used = {name for _, rest in DOCKERFILE for name in re.findall(r"\$\{(\w+)\}", rest)}
    assert used == declared
    assert json.loads(of("ENTRYPOINT")[-1]) == ["openjepa"]
    names = [name for name, _ in DOCKERFILE]
    assert of("USER") == ["openjepa"]
    assert "RUN" not in names[names.index("USER") :]  # nothing is installed as another user than root
    assert f"useradd --create-home --uid 1001 {of('USER')[0]}" in " ".join(of("RUN"))
    for script in of("RUN"):
        assert subprocess.run(["sh", "-n", "-c", script]).returncode == 0, script


def test_the_dockerfile_copies_what_is_there() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    for sources in (rest.split()[:-1] for rest in of("COPY")):
        if sources[0].startswith("--from="):
            assert sources == ["--from=build", "/wheels"]
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source in let_in, source
    needed = {"pyproject.toml", PROJECT["readme"], "LICENSE", "src"}  # what a wheel is built from
    assert needed <= {source for rest in of("COPY") for source in rest.split()}
    extras = dict(argument.split("=", 1) for argument in of("ARG"))["EXTRAS"]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_a_wheel_is_built_from_what_the_container_gets(wheel: Path, tmp_path: Path) -> None:
    """The files that its first stage copies suffice."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    assert content(built(tmp_path, tmp_path / "wheels", "wheel")) == content(wheel)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_is_in_order(file: Path) -> None:
    """It may read the repository and no more, its actions have a version, and its commands exist."""
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert {"push", "pull_request"} <= set(workflow[True])  # "on" is true in YAML 1.1
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 180
        for step in job["steps"]:
            assert set(step) <= {"uses", "with", "run"}
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0")), step
            made = re.match(r"make ([a-z-]+)", step.get("run", ""))
            assert made is None or made.group(1) in targets, step


def test_workflows_cover_every_python_that_is_allowed() -> None:
    assert [file.stem for file in WORKFLOWS] == ["docs", "tests", "wheels"]
    tests, wheels = (yaml.safe_load(file.read_text())["jobs"] for file in WORKFLOWS[1:])
    assert tests["test"]["strategy"]["matrix"]["python"] == PYTHONS
    assert wheels["install"]["strategy"]["matrix"]["python"] == PYTHONS
    said = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if fnmatch(line, "*Python :: 3.*")]
    assert said == PYTHONS
    asked = [step.get("run") for job in tests.values() for step in job["steps"]]
    for gate in ("test", "test-all", "lint", "types"):
        assert f"make {gate} PYTHON=python" in asked
