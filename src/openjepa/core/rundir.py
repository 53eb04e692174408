"""A run folder: all that a run writes, and all that is read of it later.

config.yaml      recipe and every setting            env.json        versions, machine, command, notes
manifest.json    checksums of config.yaml and assets/
metrics.jsonl    one line a log step (also .csv)     health.jsonl    one line a health check
checkpoints/     step-000500/{model.safetensors, state.pt, manifest.json}
assets/          tokenizer and the like
nonfinite.jsonl  samples of steps with NaN
evals/           one file an evaluation              summary.json    the result in one object
trackers.json    what trackers were sent, if any     tensorboard/, trackio/, wandb/, mlflow.db: what they keep here
adaptation.json  what `openjepa adapt` found, and latents/ of its documents
readout/         decoder of latents into text: config.yaml, model.safetensors, readout.json
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from openjepa.core.atomic import replaced_file, writing
from openjepa.core.config import BaseConfig
from openjepa.core.errors import DamageError, UserError
from openjepa.core.inside import require_inside
from openjepa.core.json_files import Adaptation, Environment, HealthRecord, LogRow, Summary, read_jsonl, read_object
from openjepa.core.locate import locate_recipe
from openjepa.core.manifest import MANIFEST, read_manifest, replace_listed, require_whole, write_manifest
from openjepa.core.trust import distrust, names_in
from openjepa.core.values import as_yaml, plain, read_yaml

PEAK_MEMORY = "peak_memory_gb"  # in summary.json: of training and of evaluation
# what is read of a run folder; trackers keep other things there
PARTS = (
    "config.yaml", "manifest.json", "env.json", "summary.json", "metrics.jsonl", "metrics.csv", "health.jsonl",
    "nonfinite.jsonl", "trackers.json", "adaptation.json", "checkpoints", "assets", "evals", "readout", "latents",
)  # fmt: skip
STAMPED = ("openjepa", "torch", "numpy", "transformers", "tokenizers", "lightning-fabric", "scikit-learn")


@dataclass(frozen=True)
class RunDir:
    """Paths of the files of one run. Nothing is cached."""

    path: Path

    @classmethod
    def create(cls, path: Path, recipe: str, config: BaseConfig) -> RunDir:
        """Make the folder with config and environment. Raises UserError if it already holds a run.

        A run that failed before its first log line (a misspelt file name, say) does not count: it is overwritten.
        """
        run = cls(path)
        if run.has_begun():
            raise UserError(f"{path} already holds a run; resume it with --resume {path} or choose another --out")
        with writing(path):
            shutil.rmtree(run.assets, ignore_errors=True)  # a failed start may have left another configuration's
            (path / MANIFEST).unlink(missing_ok=True)
            run.trackers.unlink(missing_ok=True)
            for folder in (run.checkpoints, run.assets, run.evals):
                folder.mkdir(parents=True, exist_ok=True)
            run.write_config(config, recipe)
            if recipe.endswith(".py"):
                shutil.copyfile(recipe, run.recipe_file)
            run.seal()
            write_json(run.environment_file, environment())
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run. Raises UserError naming the folder if it is none, or has links that lead out of it."""
        run = cls(Path(path))
        if not run.config_file.is_file():
            raise UserError(
                f"{path} is not a run folder (no config.yaml in it); `openjepa train` prints the one it made"
            )
        require_inside(run.path, PARTS)
        return run

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def assets(self) -> Path:
        return self.path / "assets"

    @property
    def recipe_file(self) -> Path:
        """The copy of a user's recipe file; a run of a built-in recipe has none."""
        return self.assets / "recipe.py"

    @property
    def evals(self) -> Path:
        return self.path / "evals"

    @property
    def evaluations(self) -> list[Path]:
        """Scorecards in `evals/`, the default one first, and the sweep; the scores of a study have pages of its own."""
        files = [file for file in self.evals.glob("*.json") if file.stem.partition("-")[0] != "study"]
        return sorted(files, key=lambda file: (file.stem != "default", file.stem))

    @property
    def readout(self) -> Path:
        return self.path / "readout"

    @property
    def adaptation(self) -> Path:
        """What `openjepa adapt` found; other runs have none."""
        return self.path / "adaptation.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def environment_file(self) -> Path:
        return self.path / "env.json"

    @property
    def nonfinite(self) -> Path:
        """The samples of steps with NaN or infinity; most runs have none."""
        return self.path / "nonfinite.jsonl"

    @property
    def metrics_csv(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def health(self) -> Path:
        return self.path / "health.jsonl"

    @property
    def trackers(self) -> Path:
        """What each tracker of `train.loggers` was sent, by its name."""
        return self.path / "trackers.json"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def write_config(self, config: BaseConfig, recipe: str) -> None:
        """Write config.yaml and its checksum atomically. Several ranks may write the same one at once."""
        text = as_yaml({"recipe": recipe, **config.model_dump(mode="json")})
        replace_listed(self.path, self.config_file.name, text)

    def seal(self) -> None:
        """Write the checksums of config.yaml and the assets as they are now."""
        write_manifest(self.path, [self.config_file, *(file for file in self.assets.rglob("*") if file.is_file())])

    def require_whole(self) -> None:
        """Raises UserError if config.yaml or an asset is not what was written."""
        self._require_whole(None)

    def _require_whole(self, names: Sequence[str] | None) -> None:
        try:
            require_whole(self.path, names)
        except DamageError as error:
            raise UserError(f"{error}; nothing of the run was used. Restore it from a copy, or train again") from None

    def has_begun(self) -> bool:
        """Whether it holds anything that training wrote."""
        return any(self.checkpoints.glob("step-[0-9]*")) or any(True for _ in self.log_rows())

    def forget_after(self, step: int) -> None:
        """Drop log lines of steps beyond `step`: a resumed run writes them again."""
        for log, schema in ((self.metrics, LogRow), (self.health, HealthRecord)):
            rows = [row for row in read_jsonl(log, schema) if row["step"] <= step]
            with replaced_file(log) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        if self.metrics_csv.exists():
            write_csv(self.metrics_csv, list(self.log_rows()))

    def add_notes(self, notes: Mapping[str, Any]) -> None:
        """Save notes in env.json from the start, so that an unfinished run has them too."""
        write_json(self.environment_file, {**self.environment(), "notes": dict(notes)})

    def add_change(self, change: Mapping[str, Any]) -> None:
        """Note in env.json that settings were changed after the run began."""
        known = self.environment()
        write_json(self.environment_file, {**known, "changes": [*known.get("changes", []), dict(change)]})

    def recipe_module(self, recipe: str) -> ModuleType:
        """The module of this run's `recipe`: of a recipe file the copy that was made when the run began.

        Raises UserError if that copy is damaged.
        """
        copy = self.recipe_file.relative_to(self.path).as_posix()
        if copy in read_manifest(self.path):
            self._require_whole([copy])
        return locate_recipe(str(self.recipe_file) if self.recipe_file.exists() else recipe)

    def notes(self) -> dict[str, Any]:
        """The notes saved by `add_notes`."""
        return self.environment().get("notes", {})

    def environment(self) -> dict[str, Any]:
        """env.json; empty if there is none. Raises UserError if it is damaged."""
        return read_object(self.environment_file, Environment)

    def log_rows(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.jsonl, oldest first; damaged ones are left out, and said."""
        return read_jsonl(self.metrics, LogRow)

    def health_records(self) -> Iterator[dict[str, Any]]:
        """The records of health.jsonl, oldest first; damaged ones are left out, and said."""
        return read_jsonl(self.health, HealthRecord)

    def read_adaptation(self) -> dict[str, Any]:
        """adaptation.json; empty for a run that `openjepa adapt` did not make. Raises UserError if it is damaged."""
        return read_object(self.adaptation, Adaptation)

    def read_summary(self) -> dict[str, Any]:
        """summary.json; empty before the end of training. Raises UserError if it is damaged."""
        return read_object(self.summary, Summary)

    def recipe_and_values(self) -> tuple[str, dict[str, Any]]:
        """The recipe's name, as it was trained, and the config values of this run.

        Code outside the package that they name is not imported from now on, unless it is trusted. Raises UserError if
        config.yaml is damaged, or names no recipe.
        """
        self._require_whole([self.config_file.name])
        values = plain(read_yaml(self.config_file))
        recipe = values.pop("recipe", None)
        if not isinstance(recipe, str):
            raise UserError(f"{self.config_file} names no recipe")
        distrust(self.code_names(recipe, values))
        return recipe, values

    def code_names(self, recipe: str, values: Mapping[str, Any]) -> list[str]:
        """What this run may name of code: its recipe, its copy of a recipe file, and functions in settings."""
        return [recipe, str(self.recipe_file), *names_in(values)]


def default_folder(name: str) -> Path:
    """The default output folder: `runs/<name>-<time>`, with a number if that exists already."""
    folder = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return folder if not folder.exists() else next(other for other in numbered if not other.exists())


def write_json(path: Path, value: Any) -> None:
    """Write a temporary file, then rename it: a reader never sees half a file. Raises WriteError as all writers do."""
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=float) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under a header of all their keys, in order of first appearance; atomic, as `write_json`."""
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line. Raises WriteError if the disk does not take it; `read_jsonl` skips the part that it took."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(row), default=float) + "\n")


def environment() -> dict[str, Any]:
    """Versions, machine and command, as needed to repeat the run."""
    versions = {}
    for name in STAMPED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": versions,
    }
