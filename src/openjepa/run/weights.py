"""The weights of a run folder at any checkpoint, its data, and what the folder says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar

from openjepa.core.compute import Compute, compute_for
from openjepa.core.config import names_files
from openjepa.core.describe import lower_settings, settings_in_use
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.inside import say_outside
from openjepa.core.published import folder_of
from openjepa.core.rundir import RunDir, write_json
from openjepa.core.seeding import seed_global
from openjepa.core.tasks import Task
from openjepa.core.trust import trust, trusts_everything
from openjepa.core.values import as_overrides
from openjepa.data.text.inputs import LongTexts, ReadingReport, TextInputs
from openjepa.data.text.sources import DataConfig, held_out_texts
from openjepa.evals.networks import Networks
from openjepa.health.treatment import treat
from openjepa.models.room import built
from openjepa.training import checkpoint

R = TypeVar("R", bound="RunWeights")
BACKGROUND_TEXTS = 500  # held-out texts whose random pairs tell what a cosine means


@dataclass(frozen=True, repr=False)
class RunWeights:
    """A run folder and the networks that can be built from it. Nothing is built before it is asked for."""

    folder: RunDir
    recipe: str
    config: Any  # the recipe's Config: a BaseConfig with a section `train`
    module: ModuleType
    device: str = "auto"
    precision: str = "auto"
    trust_code: bool = False

    def __repr__(self) -> str:
        """One line of at most 80 characters, such as "Run(t_jepa, step 1000, healthy, runs/first)"."""
        steps = checkpoint.finished(self.folder.checkpoints)
        state = f"step {checkpoint.step_of(steps[-1])}" if steps else "no checkpoint"
        health = self.health()
        parts = [self.recipe, state, *([health[-1]["status"]] if health else [])]
        line = f"Run({', '.join(parts)}, {self.path})"
        return line if len(line) <= 80 else f"{line[:38]}...{line[-39:]}"

    @property
    def path(self) -> Path:
        return self.folder.path

    @cached_property
    def compute(self) -> Compute:
        """The device and precision that the run's networks run on."""
        return compute_for(self.device, self.precision)

    def to(self, device: str | None = None, precision: str | None = None) -> Self:
        """The same run on another device or in another precision; None = as it is. Raises UserError as `load` does."""
        moved = replace(self, device=device or self.device, precision=precision or self.precision)
        compute_for(moved.device, moved.precision)
        return moved

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment with the newest checkpoint's weights, in eval mode."""
        return self.at(checkpoint.newest(self.folder.checkpoints))

    def at(self, weights: Path) -> Experiment:
        """The experiment with the weights of one checkpoint folder."""
        experiment = self.untrained(random_init=True)  # the checkpoint has every weight: no hub, no second copy on disk
        checkpoint.load_weights(weights, experiment.method)
        experiment.method.eval()
        return experiment.on(self.compute)

    @property
    def identity(self) -> dict[str, str]:
        """Which weights the run has now: its folder, the newest checkpoint, and the checksum of that one's weights."""
        newest = checkpoint.newest(self.folder.checkpoints)
        return {
            "path": str(self.path.resolve()),
            "checkpoint": newest.name,
            "weights": checkpoint.weights_digest(newest),
        }

    def fresh(self, random_init: bool = False, seed: int | None = None) -> Experiment:
        """The experiment as it was before training; with `random_init`, without any pretrained weights."""
        return self.untrained(random_init, seed).on(self.compute)

    def untrained(self, random_init: bool = False, seed: int | None = None) -> Experiment:
        """`fresh`, on the CPU: what training begins with, and moves. Raises UserError if an asset is damaged."""
        _ = self._whole
        finished = bool(checkpoint.finished(self.folder.checkpoints))

        def build() -> Experiment:
            seed_global(self.config.train.seed if seed is None else seed, "init")
            return self.module.build(self.config, BuildContext(self.folder.assets, random_init, finished))

        return built(build, lower_settings(self.config))

    @cached_property
    def _whole(self) -> bool:
        """True, once the assets were read and found to be what was written."""
        self.folder.require_whole()
        return True

    def networks(self) -> Networks:
        """The run, its initialisation and a random one; of the latter two, one at a time is in memory."""
        others = {"init": self.fresh, "random": partial(self.fresh, random_init=True, seed=-1)}
        return Networks(lambda: self.experiment, others)

    def tasks(self) -> list[Task]:
        """What the recipe asks by default; empty where the data has no labels. Raises UserError if the data is gone."""
        self.require_data()
        return self.experiment.tasks()

    def require_data(self) -> None:
        """Raises UserError if files that the run was trained on are not where they were; else says what is read."""
        for key, value in self.config.locations().items():
            if key.startswith("data."):
                require_there(self.config, key, f"if it has moved: openjepa config move {self.path} {key}=NEW")
                say_outside(self.path, key, value)

    def held_out_texts(self, limit: int = BACKGROUND_TEXTS) -> list[str]:
        """Texts of the run's data that it was not trained on."""
        return [document.text for document in held_out_texts(self._text_data, limit)]

    @property
    def compares_texts(self) -> bool:
        """Whether the run's data are texts, so that `semantic_check` has something to compare."""
        return isinstance(vars(self.config).get("data"), DataConfig)

    @property
    def _text_data(self) -> DataConfig:
        if not self.compares_texts:
            raise UserError(f"{self.recipe} keeps no held-out texts of its own; give some as background")
        self.require_data()
        return self.config.data

    def reading(self, long: LongTexts = "windows") -> ReadingReport | None:
        """An empty count of what is read of texts; None if the run embeds something else."""
        inputs = self.experiment.embedding.inputs
        return ReadingReport(inputs, long) if isinstance(inputs, TextInputs) else None

    def summary(self) -> dict[str, Any]:
        """The run's summary.json. Raises UserError if training did not end yet."""
        summary = self.folder.read_summary()
        if not summary:
            raise UserError(f"{self.path} has no summary: its training did not end; go on with --resume {self.path}")
        return summary

    def add_to_summary(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Add results that came after training to summary.json, and return it."""
        summary = {**self.summary(), **parts}
        write_json(self.folder.summary, summary)
        return summary

    def adaptation(self) -> dict[str, Any]:
        """What `openjepa adapt` measured and decided when it made this run. Raises UserError for another run."""
        found = self.folder.read_adaptation()
        if not found:
            raise UserError(f"{self.path} was not made by openjepa adapt")
        return found

    def health(self) -> list[dict[str, Any]]:
        """All records of the health monitor, oldest first."""
        return list(self.folder.health_records())

    def suggested_overrides(self) -> list[str]:
        """What would treat the newest verdict, as "key=value" of this run's recipe; nothing for a healthy run."""
        records = self.health()
        if not records or records[-1]["status"] in ("healthy", "not judged"):
            return []
        latest = records[-1]
        patch = treat(latest["kind"], settings_in_use(self.config), latest, latest["also"])
        return as_overrides(patch)


def opened_as(
    kind: type[R], path: str | Path, device: str = "auto", precision: str = "auto", trust_code: bool = False
) -> R:
    """The run folder `path` as a RunWeights or more; arguments and errors are those of `openjepa.load`."""
    compute_for(device, precision)
    folder = RunDir.open(folder_of(path))
    recipe, values = folder.recipe_and_values()
    if trust_code:
        trust(folder.code_names(recipe, values))
    module = folder.recipe_module(recipe)
    config = module.Config.load(values)
    return kind(folder, recipe, config, module, device, precision, trust_code or trusts_everything())


def require_there(config: Any, key: str, advice: str) -> None:
    """Raises UserError if this setting is an absolute path of nothing."""
    value = config.setting(key)
    if isinstance(value, str) and Path(value).is_absolute() and not names_files(value):
        raise UserError(f"{key}={value}: there is nothing of that name; {advice}")
