"""Masks of real samples, drawn as in training: the same rows in two epochs, with the random addresses of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.configure import configure, recipe_with
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Experiment, Sample, StreamedData
from openjepa.core.inside import named_by_user, say_outside
from openjepa.core.picture import Patches, Picture
from openjepa.core.rundir import RunDir
from openjepa.core.seeding import generator_for, seed_global
from openjepa.training import checkpoint

EPOCHS = 2
ROWS = 512  # that figures are made from
AT_ONCE = 64  # rows in a batch


@dataclass(frozen=True)
class Masks:
    """R rows of N positions in one epoch; rows shorter than N end in positions that are not valid."""

    valid: np.ndarray  # [R, N] bool
    hidden: np.ndarray  # [R, N] bool, to be predicted
    shown: np.ndarray  # [R, N] bool, read by the context encoder
    times_hidden: np.ndarray | None  # [R, N] how many hidden blocks contain each position, where the recipe counts that


@dataclass(frozen=True)
class Sampled:
    """Masks of the same rows in EPOCHS epochs, and pictures of the first rows."""

    epochs: tuple[Masks, ...]
    pictures: tuple[Sequence[Picture], ...]  # one sequence an epoch (augmentations differ); empty if there are none

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the positions, if these are patches of an image."""
        first = self.pictures[0][0] if self.pictures[0] else None
        return first.grid if isinstance(first, Patches) else None


@contextmanager
def built(
    target: str, preset: str | None, config: Path | None, overrides: Sequence[str]
) -> Generator[tuple[str, Any, Experiment]]:
    """Name of the recipe, its config and the experiment of a run folder or a recipe, untrained.

    Raises UserError for what cannot be built, or for a preset with a run.
    """
    with tempfile.TemporaryDirectory() as new:
        if Path(target, "config.yaml").is_file():
            if preset or config:
                raise UserError("a run has its own configuration: give no --preset or --config with it")
            folder = RunDir.open(Path(target))
            recipe, values = folder.recipe_and_values()
            module = folder.recipe_module(recipe)
            assets = folder.assets
            settings = module.Config.load(values, overrides)
            finished = bool(checkpoint.finished(folder.checkpoints))
            named_by_user(item.partition("=")[2] for item in overrides)
            for key, value in settings.locations().items():
                if key.startswith("data."):
                    say_outside(folder.path, key, value)
        else:
            assets = Path(new)
            finished = False
            module, settings = configure(target, preset, config, overrides)
            recipe = recipe_with(preset, target)
        seed_global(settings.train.seed, "init")
        yield recipe, settings, module.build(settings, BuildContext(assets, random_init=True, finished=finished))


def sample(experiment: Experiment, pictured: int, rows: int = ROWS) -> Sampled:
    """Masks of up to `rows` training rows spread over the data; the first `pictured` of them with their pictures.

    Raises UserError if the recipe's batches have no masks.
    """
    data = experiment.train_data
    if isinstance(data, StreamedData):
        samples: list[Any] = list(islice(next(iter(data.windows())).rows, rows))
        numbers = list(range(len(samples)))
    else:
        size = len(data)  # ty: ignore[invalid-argument-type]
        numbers = [int(number) for number in np.unique(np.linspace(0, size - 1, min(rows, size)).round())]
        numbers = numbers[:: max(1, len(numbers) // pictured)] + numbers  # pictured rows are spread over the data, too
        numbers = list(dict.fromkeys(numbers))
        samples = [data[number] for number in numbers]
    drawn = [_epoch(experiment, samples, numbers, epoch, pictured) for epoch in range(EPOCHS)]
    return Sampled(tuple(masks for masks, _ in drawn), tuple(pictures for _, pictures in drawn))


def _epoch(
    experiment: Experiment, samples: Sequence[Any], numbers: Sequence[int], epoch: int, pictured: int
) -> tuple[Masks, list[Picture]]:
    view = getattr(experiment.train_data, "training_view", None)  # optional, see Experiment
    parts: list[Masks] = []
    pictures: list[Picture] = []
    for start in range(0, len(samples), AT_ONCE):
        rows = []
        for item, number in zip(samples[start : start + AT_ONCE], numbers[start : start + AT_ONCE], strict=True):
            generator = generator_for(experiment.train.seed, "sample", epoch, number)  # the loader's address
            rows.append(Sample(item if view is None else view(item, generator), generator, number))
        batch = experiment.collate(rows)
        parts.append(masks_of(batch))
        if experiment.pictures is not None and len(pictures) < pictured:
            pictures += experiment.pictures(batch)
    return _together(parts), pictures[:pictured]


def masks_of(batch: Batch) -> Masks:
    """The masks of a batch. Raises UserError if it has none."""
    valid = getattr(batch, "valid", None)
    hidden = getattr(batch, "hidden", None)
    if not isinstance(valid, Tensor) or not isinstance(hidden, Tensor):
        raise UserError(
            "nothing is hidden with these settings: the recipe's batches have no masks (`valid` and `hidden` [B, N])"
        )
    shown = getattr(batch, "shown", valid & ~hidden)
    times = getattr(batch, "times_hidden", None)
    return Masks(valid.numpy(), hidden.numpy(), shown.numpy(), None if times is None else times.numpy())


def _together(parts: Sequence[Masks]) -> Masks:
    """Concatenate masks, padded to the widest."""
    width = max(part.valid.shape[1] for part in parts)

    def stack(name: str) -> np.ndarray:
        arrays = [getattr(part, name) for part in parts]
        return np.concatenate([np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays])

    times = None if parts[0].times_hidden is None else stack("times_hidden")
    return Masks(stack("valid"), stack("hidden"), stack("shown"), times)
