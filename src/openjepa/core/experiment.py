"""What a recipe returns: everything the engine needs, nothing it must guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.method import Method
from openjepa.core.tasks import Task


class Row(NamedTuple):
    """One sample on its way into a batch, with the randomness that belongs to it."""

    sample: Any
    generator: torch.Generator  # addressed by (seed, epoch, index): masks are drawn from it
    index: int


@dataclass(frozen=True)
class BuildContext:
    """What `build` needs besides the config."""

    assets: Path  # folder of files that belong to the model (tokenizer, encoder config); filled on the first build
    random_init: bool = False  # True: ignore pretrained weights, for the ledger's random baseline


def no_tasks() -> list[Task]:
    return []


@dataclass(frozen=True)
class Experiment:
    """A recipe made concrete. Data sets may be lazy: embedding with a loaded run never touches them."""

    method: Method
    train_data: Dataset  # item i -> sample; may have `lengths` [N] (tokens per item) for bucketed batches
    eval_data: Dataset  # held out from training
    collate: Callable[[Sequence[Row]], Batch]
    prepare: Callable[[Sequence[Any]], Batch]  # user inputs (texts, images) -> Batch with nothing hidden, for embed
    train: TrainConfig
    tasks: Callable[[], list[Task]] = no_tasks  # what `eval` asks by default; made only when asked
    notes: Callable[[], dict[str, Any]] = dict  # counted facts on the data and the method, for logs and env.json
