"""A run as a model of the Hugging Face hub: an export at the top, so that others need no openjepa, and the run itself.

    README.md, config.json, model.safetensors, ...    the export, with its model card
    openjepa/                                         what `openjepa.load("owner/name")` needs of the run

Of absolute paths only the last part is published, and nothing of the machine: no environment, no optimiser state.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openjepa.core import hub
from openjepa.core.errors import UserError, first_line
from openjepa.core.json_files import read_json
from openjepa.core.manifest import write_manifest
from openjepa.core.published import RUN_FOLDER
from openjepa.core.rundir import RunDir, write_json
from openjepa.core.values import as_yaml
from openjepa.export.bundle import Format, export, needs_code
from openjepa.export.card import without_folders
from openjepa.export.source import Source
from openjepa.training import checkpoint

LOGS = ("metrics.jsonl", "health.jsonl")


@dataclass(frozen=True)
class Published:
    """A model of the hub."""

    name: str
    address: str
    files: tuple[str, ...]
    size_mb: float

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "address": self.address, "files": list(self.files), "size_mb": self.size_mb}


def publish(run: RunDir, source: Source, to: Format, name: str, private: bool) -> Published:
    """Write what is published to a temporary folder and upload it in one commit.

    Raises UserError if the format cannot express the run, or the hub cannot be reached or refuses.
    """
    if not hub.is_repository(name) or "/" not in name:
        raise UserError(f"{name!r} is no name of a model; give owner/name")
    if needs_code(source, "sentence-transformers"):
        raise UserError(
            f"{source.name} marks the end of each sentence before it reads a text, so an export needs a file of code, "
            f"and push uploads none; openjepa export {run.path} --to sentence-transformers --with-code --out FOLDER "
            f"makes one, and hf upload {name} FOLDER uploads it"
        )
    reason = hub.absence()
    if reason is not None:
        raise UserError(f"the hub ({hub.endpoint()}) cannot be reached ({reason}); nothing was published")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        export(source, to, folder)
        write_run(run, folder / RUN_FOLDER)
        files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        size_mb = sum((folder / file).stat().st_size for file in files) / 1e6
        address = _upload(folder, name, private)
    return Published(name, address, tuple(files), round(size_mb, 1))


def write_run(run: RunDir, out: Path) -> None:
    """The parts of a run that others need to open it, read its evaluations and repeat it."""
    newest = checkpoint.newest(run.checkpoints)
    weights = out / "checkpoints" / newest.name
    weights.mkdir(parents=True)
    shutil.copy(newest / checkpoint.WEIGHTS, weights)
    write_manifest(weights, weights.iterdir())
    for folder in (run.assets, run.readout):
        if folder.is_dir():
            shutil.copytree(folder, out / folder.name)
    recipe, values = run.recipe_and_values()
    (out / "config.yaml").write_text(as_yaml({"recipe": recipe, **without_folders(values)}), encoding="utf-8")
    RunDir(out).seal()
    (out / "evals").mkdir()
    for file in [*run.evals.glob("*.json"), run.summary]:
        if file.is_file():
            write_json(out / file.relative_to(run.path), without_folders(read_json(file)))
    for log in LOGS:
        if (run.path / log).is_file():
            shutil.copy(run.path / log, out)


def _upload(folder: Path, name: str, private: bool) -> str:
    from huggingface_hub import HfApi

    api = HfApi(library_name="openjepa")
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by OpenJEPA")
    except Exception as error:  # the client's own and httpx's share no base class
        raise UserError(f"the hub ({hub.endpoint()}) did not take {name}: {_reason(error)}") from error
    return str(commit.repo_url)


def _reason(error: Exception) -> str:
    """The first line of an error, and what to do about a missing right."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    way = "; log in with: hf auth login, or set HF_TOKEN to a token that may write" if code in (401, 403) else ""
    return f"{first_line(error)[:200]}{way}"
