"""What a recipe returns: everything the engine needs, nothing it must guess."""

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
from openjepa.core.method import Method, predictor_of
from openjepa.core.picture import Picture
from openjepa.core.reading import ReadoutSource
from openjepa.core.tasks import Retrieval, Task


class Sample(NamedTuple):
    """One sample on its way into a batch, with the randomness that belongs to it."""

    sample: Any
    generator: torch.Generator  # addressed by (seed, epoch, index): masks are drawn from it
    index: int


Offset = tuple[int, ...]  # where a window of a stream begins; it means something to its stream only


@dataclass(frozen=True)
class Window:
    """Neighbouring rows of a stream, few enough to be held in memory and shuffled among themselves."""

    rows: Sequence[Any]  # samples
    lengths: np.ndarray | None  # [N] int32, tokens of each row, for bucketed batches
    first: int  # the rows are numbered on from here; the first row of an epoch is 0
    offset: Offset


@runtime_checkable
class StreamedData(Protocol):
    """Training data without `len` and `[i]`: windows of rows, always the same ones in the same order."""

    def windows(self, start: Offset | None = None) -> Iterator[Window]:
        """One epoch; with `start`, the offset of one of its windows, only that one and those after it."""
        ...


@dataclass(frozen=True)
class BuildContext:
    """What `build` needs besides the config."""

    assets: Path  # folder of files that belong to the model (tokenizer, base encoder); filled on the first build
    random_init: bool = False  # True: ignore pretrained weights, for the scorecard's random baseline

    def kept(self, name: str, weights: bool) -> str | None:
        """The folder of a base model that an earlier build kept in the assets; None if it lacks what is needed."""
        folder = self.assets / name
        needed = ["config.json", *(["model.safetensors"] if weights else [])]
        return str(folder) if all((folder / file).is_file() for file in needed) else None


def no_tasks() -> list[Task]:
    return []


def no_remarks() -> list[str]:
    return []


@dataclass(frozen=True)
class Experiment:
    """A recipe made concrete. Data sets may be lazy: embedding with a loaded run never touches them.

    Training data may have a `training_view(sample, generator)`: what training sees of a sample, drawn anew each epoch
    from the generator of its row and no longer than the sample.
    """

    method: Method
    train_data: Dataset | StreamedData  # item i -> sample, perhaps with `lengths` [N] (tokens) for bucketed batches
    eval_data: Dataset  # held out from training
    collate: Callable[[Sequence[Sample]], Batch]
    embedding: Embedding  # how inputs of a user become vectors: what is embedded, swept and exported
    train: TrainConfig
    mask_ratio: float | None = None  # of a row that is hidden on average, where a setting says so; `check` compares
    pad_to: int = 1  # `collate` pads rows to a multiple of it; those who plan batches of so many tokens count with it
    tasks: Callable[[], list[Task]] = no_tasks  # what `eval` asks by default; made only when asked
    # vectors of inputs that take no learning, by column of the scorecard; none = TF-IDF, where tasks show texts
    baselines: Mapping[str, Callable[[Sequence[Any]], np.ndarray]] = field(default_factory=dict)
    watch: Callable[[], Retrieval] | None = None  # asked at every health check, for curves over training
    readable: ReadoutSource | None = None  # what a readout turns back into text, if anything
    pictures: Callable[[Any], Sequence[Picture]] | None = None  # how the rows of a batch look, offset by offset
    # pictures of what the method predicts, by name: (method, file to draw to)
    figures: Mapping[str, Callable[[Method, Path], None]] = field(default_factory=dict)
    unknown: Callable[[], Any] | None = None  # texts only: the `data.unknown_tokens.UnknownTokens` of the training data
    notes: Callable[[], dict[str, Any]] = dict  # counted facts on the data and the method, for logs and env.json
    remarks: Callable[[], Sequence[str]] = no_remarks  # a line each: what cannot be as the settings ask
    compute: Compute = ON_CPU  # where the method is when it is not trained; see `on`

    def __post_init__(self) -> None:
        if self.train.predictor_only_fraction:
            predictor_of(self.method)  # raises where there is none

    def on(self, compute: Compute) -> Self:
        """The same experiment with its method moved to a device, to be asked there."""
        self.method.to(compute.device)
        return replace(self, compute=compute)
