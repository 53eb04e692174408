"""What the two sides of every recipe of `bench_step.py` share: what is asked of both, and the step of our loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from reference_parts import Padding
from stepping import Read, Side
from torch import Tensor

from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for, seed_global
from openjepa.data.loading.loader import train_batches
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.choice import TextTokenizer, TokenizerConfig, load_or_train
from openjepa.models.transformer import real_of
from openjepa.training.loop import make_fabric
from openjepa.training.optim import build_optimizer

FOREVER = 1_000_000  # steps of a run that is never finished
MOST_DOCUMENTS = 20_000


@dataclass(frozen=True)
class Size:
    """An encoder or decoder, and a batch."""

    layers: int
    dim: int
    heads: int
    vocab: int  # at most; how much of it the texts fill is reported
    batch_tokens: int

    def products(self) -> list[tuple[int, int, int]]:
        """(rows, inner, outer) of the model's matrix products, for half a batch."""
        rows, wide = self.batch_tokens // 2, 4 * self.dim
        return [(rows, self.dim, self.dim), (rows, self.dim, wide), (rows, wide, self.dim)]


DISTILBERT = Size(layers=6, dim=768, heads=12, vocab=30_522, batch_tokens=4096)  # the batch of the presets `tiny`


@dataclass(frozen=True)
class Asked:
    """What both sides are made from."""

    size: Size
    source: str  # of the data
    folder: Path  # a new one
    precision: str  # of our side
    padding: Padding | None  # of the reference's rows
    overrides: Sequence[str]  # key=value for the recipe, our side

    @property
    def data(self) -> dict[str, Any]:
        """Section `data` of the recipe's config."""
        return {"source": self.source, "documents": MOST_DOCUMENTS}

    @property
    def train(self) -> dict[str, Any]:
        """Section `train` of the recipe's config."""
        return {
            "steps": FOREVER,
            "batch_tokens": self.size.batch_tokens,
            "batch_size": self.size.batch_tokens // 8,
            "precision": self.precision,
            "accelerator": "cpu",
        }

    @property
    def encoder(self) -> Path:
        """Folder of a transformers encoder, see `make_encoder`."""
        return self.folder / "encoder"

    @property
    def assets(self) -> Path:
        """Folder of our side's own files."""
        return self.folder / "assets"


class Built(NamedTuple):
    """Our side, ready to step."""

    side: Side
    rows: Any  # of the training data: [i], len(), lengths
    config: Any  # the recipe's
    vocabulary: int


@dataclass(frozen=True)
class Recipe:
    """A benchmark: what it counts, its usual size and data, and how its sides are made."""

    item: str  # what speed counts, e.g. "real token"
    world: str  # data
    size: Size
    padding: Padding | None  # the original's own; None = all rows are of one length
    ours: Callable[[Asked], Built]
    original: Callable[[Asked, Built], Side]


def make_encoder(asked: Asked) -> TextTokenizer:
    """Train a vocabulary on the texts, and write the config of a DistilBERT of this size for it, both into a folder."""
    from transformers import DistilBertConfig

    wanted, size = TokenizerConfig(kind="wordpiece", vocab_size=asked.size.vocab), asked.size
    tokenizer = load_or_train(wanted, DataConfig(**asked.data), asked.encoder / "tokenizer.json")
    DistilBertConfig(
        vocab_size=tokenizer.vocab_size,
        pad_token_id=tokenizer.pad_id,
        n_layers=size.layers,
        dim=size.dim,
        n_heads=size.heads,
        hidden_dim=4 * size.dim,
    ).save_pretrained(asked.encoder)
    return tokenizer


def made(recipe: ModuleType, asked: Asked, values: Mapping[str, Any]) -> tuple[Any, Experiment]:
    """A recipe's config, from what is asked of every side and `values`, and the experiment it describes."""
    config = recipe.Config.load({"data": asked.data, "train": asked.train, **values}, asked.overrides)
    seed_global(config.train.seed, "weights")
    return config, recipe.build(config, BuildContext(asked.assets))


def with_encoder(recipe: ModuleType, asked: Asked, max_len: int, **values: Any) -> tuple[Any, Experiment, int]:
    """`made` with `values` and the encoder that the reference has too, untrained; and the size of its vocabulary.

    Without `invariance`, for which the student reads the hidden text too: the originals have nothing like it.
    """
    vocabulary = make_encoder(asked).vocab_size
    encoder = {"name": str(asked.encoder), "weights": False, "max_len": max_len}
    return *made(recipe, asked, {"encoder": encoder, "invariance": 0.0, **values}), vocabulary


def real_positions(encoder: Any, valid: Tensor) -> Tensor:
    """Which positions are real, of those that a transformers encoder reads for `valid` [B, T]: texts may share rows."""
    packing = encoder.packing(valid)
    real = real_of(valid if packing is None else packing.segments)
    assert real is not None
    return real


def our_side(experiment: Experiment, read: Callable[[Any], Read]) -> Side:
    """The step of `openjepa.training.loop.fit` on the recipe's batches, of each of which `read` says what it holds."""
    config = experiment.train
    fabric = make_fabric(config)
    method, optimizer = fabric.setup(experiment.method, build_optimizer(experiment.method, config))
    method.train()
    batches = enumerate(train_batches(experiment, 0))

    def step() -> Read:
        number, batch = next(batches)
        seed_global(config.seed, "step", number)
        progress = Progress(number, config.steps)
        fabric.backward(method(replace(batch, progress=progress)).loss)
        fabric.clip_gradients(method, optimizer, max_norm=config.grad_clip, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        experiment.method.after_step(progress)
        return read(batch)

    return Side(step, sum(p.numel() for p in experiment.method.parameters() if p.requires_grad))


def shuffled(rows: Sequence[Any], lengths: Sequence[int], batch_tokens: int) -> Iterator[list[Any]]:
    """Batches of rows in random order, for ever: as many rows each as hold about `batch_tokens` on average."""
    size = min(len(rows), max(2, round(batch_tokens * len(rows) / sum(lengths))))
    epoch = 0
    while True:
        order = torch.randperm(len(rows), generator=generator_for(0, "order", epoch)).tolist()
        for first in range(0, len(order) - size + 1, size):
            yield [rows[i] for i in order[first : first + size]]
        epoch += 1
