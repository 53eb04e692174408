"""Held-out inputs of a run with their vectors, known factors, and HTML.

Inputs are, in this order: those of the recipe's classification tasks (their classes are the factors); held-out texts
(the factor is their length); else rows of the batches that health is checked on, without a factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.api import Run
from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.picture import Patches, Picture
from openjepa.core.tasks import Classification
from openjepa.data.loading.loader import eval_batches
from openjepa.data.pictures import image_pictures
from openjepa.evals.features import embedder_of, input_key, require_finite
from openjepa.health.skill import within_share
from openjepa.pages.parts.images import png_uri

INPUTS = 400
BATCHES = 4
FACTORS = 4  # those that explain most variance of the vectors
CLASSES = 8  # of a factor; rarer ones are merged into one class
OTHERS = "others"  # the name of the merged class
SHOWN_CHARS = 180  # of a text

Show = Callable[[Sequence[int]], list[str]]  # numbers of inputs -> HTML of each


@dataclass(frozen=True)
class Factor:
    """A known factor of every input."""

    name: str
    labels: np.ndarray  # [N] int64
    classes: tuple[str, ...]
    share: float = 0.0  # of the variance of the run's vectors that it explains


@dataclass(frozen=True)
class Samples:
    """N held-out inputs."""

    vectors: dict[str, np.ndarray]  # "run" and "initialisation" -> [N, D]
    factors: tuple[Factor, ...]
    show: Show
    origin: str  # a description of the inputs

    @property
    def count(self) -> int:
        return len(self.vectors["run"])


def held_out_samples(run: Run) -> Samples:
    """Inputs of a run that has a checkpoint. Raises UserError if it has none, or gives NaN."""
    networks = {"run": run.experiment, "initialisation": run.fresh()}
    available = _task_inputs(run) or _texts(run)
    if available is None:
        samples = _batch_rows(networks)
    else:
        inputs, factors, origin = available
        vectors = {name: embedder_of(network, network.train.batch_size)(inputs) for name, network in networks.items()}
        samples = Samples(vectors, factors, lambda rows: _shown(run.experiment, [inputs[i] for i in rows]), origin)
    for name, vectors in samples.vectors.items():
        require_finite(vectors, f"the network {name!r}")
    if samples.count < 3:
        raise UserError("there are fewer than 3 held-out inputs")
    shares = {factor.name: explained(samples.vectors["run"], factor.labels) for factor in samples.factors}
    strongest = sorted(samples.factors, key=lambda factor: -shares[factor.name])[:FACTORS]
    return replace(samples, factors=tuple(replace(factor, share=shares[factor.name]) for factor in strongest))


def explained(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Share of the variance of vectors [N, D] between the means of the labels [N], in [0, 1]."""
    return 1 - within_share(torch.from_numpy(vectors).double(), torch.from_numpy(labels))


def _task_inputs(run: Run) -> tuple[list[Any], tuple[Factor, ...], str] | None:
    """Test inputs of the largest group of classifications on the same inputs."""
    groups: dict[Any, list[Classification]] = {}
    for task in run.tasks():
        if isinstance(task, Classification):
            groups.setdefault(input_key(task.test), []).append(task)
    if not groups:
        return None
    tasks = max(groups.values(), key=len)
    chosen = np.unique(np.linspace(0, len(tasks[0].test) - 1, INPUTS).round().astype(int))
    factors = tuple(factor_of(task, chosen) for task in tasks)
    return [tasks[0].test[i] for i in chosen], factors, f"{len(chosen)} test inputs of the recipe's own evaluation"


def factor_of(task: Classification, chosen: np.ndarray) -> Factor:
    """The task's classes, the rarer ones merged."""
    labels = np.asarray(task.test_labels, dtype=np.int64)[chosen]  # [N]
    known = np.flatnonzero(np.bincount(labels, minlength=len(task.classes)))
    if len(known) > CLASSES:
        frequent = np.argsort(-np.bincount(labels), kind="stable")[: CLASSES - 1]
        index = np.full(len(task.classes), CLASSES - 1)
        index[frequent] = np.arange(CLASSES - 1)
        return Factor(task.name, index[labels], (*(str(task.classes[i]) for i in frequent), OTHERS))
    index = np.zeros(len(task.classes), dtype=np.int64)
    index[known] = np.arange(len(known))
    return Factor(task.name, index[labels], tuple(str(task.classes[i]) for i in known))


def _texts(run: Run) -> tuple[list[Any], tuple[Factor, ...], str] | None:
    """Held-out texts, with their length as factor; None if the run has none."""
    try:
        texts = run.held_out_texts(INPUTS)
    except UserError:
        return None
    words = np.array([len(text.split()) for text in texts])  # [N]
    cuts = np.unique(np.quantile(words, (0.25, 0.5, 0.75)).round().astype(int))
    labels = np.searchsorted(cuts, words, side="right")
    ends = ["", *map(str, cuts), ""]
    names = [
        f"{low} or more words" if not high else f"below {high}" if not low else f"{low} to {int(high) - 1}"
        for low, high in pairwise(ends)
    ]
    return texts, (Factor("length", labels, tuple(names)),), f"{len(texts)} held-out texts"


def _batch_rows(networks: dict[str, Experiment]) -> Samples:
    """Rows of held-out batches, embedded without masks."""
    batches = list(eval_batches(networks["run"], BATCHES))
    if not batches:
        raise UserError("the eval split is empty")
    vectors = {name: _embedded(network, batches) for name, network in networks.items()}
    rows = [picture for batch in batches for picture in _pictures(networks["run"], batch)]

    def show(numbers: Sequence[int]) -> list[str]:
        return [_picture(rows[i]) if rows else f"row {i + 1}" for i in numbers]

    count = len(vectors["run"])
    return Samples(vectors, (), show, f"{count} rows of the held-out batches that health is checked on")


def _embedded(experiment: Experiment, batches: Sequence[Batch]) -> np.ndarray:
    compute = experiment.compute
    with evaluating(experiment.method, compute):
        parts = [experiment.method.embed(batch.to(compute.device)).float().cpu().numpy() for batch in batches]
    return np.concatenate(parts)


def _pictures(experiment: Experiment, batch: Any) -> Sequence[Picture]:
    if experiment.pictures is not None:
        return experiment.pictures(batch)
    images = getattr(batch, "images", None)
    grid = getattr(batch, "grid", None)
    return image_pictures(batch) if isinstance(images, Tensor) and isinstance(grid, tuple) else []


def _shown(experiment: Experiment, inputs: Sequence[Any]) -> list[str]:
    if all(isinstance(item, str) for item in inputs):
        return [text_html(item) for item in inputs]
    pictures = _pictures(experiment, experiment.embedding.inputs(inputs))
    return [_picture(picture) for picture in pictures] or [f"input {i + 1}" for i in range(len(inputs))]


def _picture(picture: Picture) -> str:
    if isinstance(picture, Patches):
        alt = escape(picture.caption) or "held-out image"
        caption = f"<small>{text_html(picture.caption)}</small>" if picture.caption else ""
        return f'<img class="thumb" alt="{alt}" src="{png_uri(picture.pixels)}">{caption}'
    return text_html("".join(picture.texts).replace(" [PAD]", ""))


def text_html(text: str) -> str:
    """One line of a text, cut after a word."""
    line = " ".join(text.split())
    short = (
        line
        if len(line) <= SHOWN_CHARS
        else (line[: SHOWN_CHARS + 1].rpartition(" ")[0] or line[:SHOWN_CHARS]) + " ..."
    )
    return f'<span class="said">{escape(short)}</span>'
