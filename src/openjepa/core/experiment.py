"""What a recipe returns: data, networks and tasks, all that training, evaluation and export need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch.utils.data import Dataset

from openjepa.core.batch import Batch
from openjepa.core.compute import ON_CPU, Compute
from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.errors import UserError
from openjepa.core.method import Method, predictor_of
from openjepa.core.picture import Picture
from openjepa.core.reading import ReadoutSource
from openjepa.core.tasks import Retrieval, Task


class Sample(NamedTuple):
    """One sample of a batch to be collated, with its own random generator."""

    sample: Any
    generator: torch.Generator  # addressed by (seed, epoch, index): masks are drawn from it
    index: int


Offset = tuple[int, ...]  # where a window of a stream begins; only the stream interprets it


@dataclass(frozen=True)
class Window:
    """Neighbouring rows of a stream, few enough to be held in memory and shuffled among themselves."""

    rows: Sequence[Any]  # samples
    lengths: np.ndarray | None  # [N] int32, tokens of each row, for bucketed batches
    first: int  # number of its first row; the first row of an epoch is 0
    offset: Offset


@runtime_checkable
class StreamedData(Protocol):
    """Training data without `len` and `[i]`: windows of rows, always the same ones in the same order."""

    def windows(self, start: Offset | None = None) -> Iterator[Window]:
        """Yield one epoch; with `start`, the offset of one of its windows, only that one and those after it."""
        ...


@dataclass(frozen=True)
class BuildContext:
    """What `build` needs besides the config."""

    assets: Path  # folder of files that belong to the model (tokenizer, base encoder); filled on the first build
    random_init: bool = False  # True: ignore pretrained weights, for the scorecard's random baseline
    finished: bool = False  # True: the run has a checkpoint, so all it needs is in the assets, and nothing is fetched

    def asset(self, name: str) -> Path:
        """The path of a file that the first build puts into the assets. Raises UserError if a finished run lacks it."""
        path = self.assets / name
        if self.finished and not path.exists():
            raise self._missing(path)
        return path

    def kept(self, name: str, weights: bool) -> str | None:
        """The folder of a base model that an earlier build saved in the assets; None if a needed file is missing.

        Raises UserError if it is missing in a finished run: what its settings name is not fetched again.
        """
        folder = self.assets / name
        needed = ["config.json", *(["model.safetensors"] if weights else [])]
        missing = [folder / file for file in needed if not (folder / file).is_file()]
        if missing and self.finished:
            raise self._missing(missing[0])
        return None if missing else str(folder)

    def _missing(self, path: Path) -> UserError:
        return UserError(f"{path} is gone, and is not made or fetched again for a run that is trained; restore a copy")


def no_tasks() -> list[Task]:
    return []


def no_remarks() -> list[str]:
    return []


@dataclass(frozen=True)
class Experiment:
    """A built recipe. Data sets may be lazy: embedding with a loaded run never reads them.

    Training data may have a `training_view(sample, generator)`: the view of a sample in training, drawn anew each epoch
    from the generator of its row and no longer than the sample.
    """

    method: Method
    train_data: Dataset | StreamedData  # item i -> sample, perhaps with `lengths` [N] (tokens) for bucketed batches
    eval_data: Dataset  # held out from training
    collate: Callable[[Sequence[Sample]], Batch]
    embedding: Embedding  # how inputs of a user become vectors: what is embedded, swept and exported
    train: TrainConfig
    mask_ratio: float | None = None  # part of a row hidden on average, if a setting gives it; `check` compares
    pad_to: int = 1  # `collate` pads rows to a multiple of it; the batch planner rounds lengths up to it
    tasks: Callable[[], list[Task]] = no_tasks  # those of `eval` by default; made when first needed
    # vectors of inputs without training, by column of the scorecard; none = TF-IDF, where tasks have texts
    baselines: Mapping[str, Callable[[Sequence[Any]], np.ndarray]] = field(default_factory=dict)
    watch: Callable[[], Retrieval] | None = None  # scored at every health check, for curves over training
    readable: ReadoutSource | None = None  # what a readout decodes into text, if anything
    pictures: Callable[[Any], Sequence[Picture]] | None = None  # the rows of a batch for display
    # pictures of what the method predicts, by name: (method, file to draw to)
    figures: Mapping[str, Callable[[Method, Path], None]] = field(default_factory=dict)
    unknown: Callable[[], Any] | None = None  # texts only: the `UnknownTokens` of the training data
    notes: Callable[[], dict[str, Any]] = dict  # counts and facts on the data and the method, for logs and env.json
    remarks: Callable[[], Sequence[str]] = no_remarks  # one line for each setting that cannot be met
    compute: Compute = ON_CPU  # of the method outside training; see `on`

    def __post_init__(self) -> None:
        if self.train.predictor_only_fraction:
            predictor_of(self.method)  # raises where there is none

    def on(self, compute: Compute) -> Self:
        """The same experiment with its method moved to a device."""
        self.method.to(compute.device)
        return replace(self, compute=compute)
