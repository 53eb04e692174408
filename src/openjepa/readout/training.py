"""Training of readouts, which decode the latents of a frozen method to text.

One pass of the method over a batch feeds two readouts of the same size, initialisation and batches: one reads the
latent of each text, the other latents *shuffled between rows*. The second can only use the language, so the first one's
gain over it comes from the latents. The method is in eval mode without gradients and never changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.errors import TrainingStopped
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.progress import Progress
from openjepa.core.reading import TextLatents
from openjepa.core.schedules import warmup_cosine
from openjepa.core.seeding import generator_for, seed_global
from openjepa.data.loading.loader import eval_batches, train_batches
from openjepa.readout.decoder import Readout, ReadoutConfig
from openjepa.training.optim import build_optimizer, set_rates


class ReadoutTraining(BaseConfig):
    """Training of a readout by AdamW. Other settings (batch size, weight decay, precision) are the run's."""

    decoder: ReadoutConfig = ReadoutConfig()
    learn_from: Literal["target", "predicted"] = "target"
    """the latents it is trained on: targets, or those predicted from the context"""
    steps: int = Field(1000, ge=1)
    """optimiser steps, each on one batch of the run's training data"""
    lr: float = Field(3e-3, gt=0)
    """peak learning rate"""
    warmup_steps: int = Field(50, ge=0)
    """steps of linear warm-up, from 0.2 of the peak"""
    eval_batches: int = Field(32, ge=1)
    """held-out batches to test on"""
    seed: int = 0
    """of weights, order, masks and shuffling"""

    def merged_into(self, run: TrainConfig) -> TrainConfig:
        """The run's training section with the settings of the readout."""
        values = run.model_dump() | {"accumulate": 1, "devices": 1, "final_weight_decay": None}
        values |= {"optimizer": "adamw", "optimizer_args": {}}  # for which `lr` is meant
        return TrainConfig.load(values | self.model_dump(include={"steps", "lr", "warmup_steps", "seed"}))


@dataclass(frozen=True)
class Fitted:
    """Two trained readouts: one on the latent of each text, one on shuffled latents."""

    readout: Readout
    shuffled: Readout
    loss: float  # nats a token, on the last training batch
    shuffled_loss: float
    train_s: float


class Readings:
    """Latents and texts of an experiment's batches, by its frozen method, on its device."""

    def __init__(self, experiment: Experiment, config: ReadoutTraining) -> None:
        assert experiment.readable is not None, "callers check this by require_readable"
        self.readable = experiment.readable
        self.train = config.merged_into(experiment.train)
        self.experiment = replace(experiment, train=self.train)
        self.compute = experiment.compute

    def training(self) -> Iterator[TextLatents]:
        """Latents and texts of one training batch a step."""
        return map(self._read, train_batches(self.experiment, 0))

    def held_out(self, limit_batches: int) -> Iterator[TextLatents]:
        """Latents and texts of held-out batches, the same ones at every call."""
        return map(self._read, eval_batches(self.experiment, limit_batches))

    def _read(self, batch: Batch) -> TextLatents:
        with evaluating(self.experiment.method, self.compute):
            reading = self.readable.read(self.experiment.method, batch.to(self.compute.device))
        return replace(reading, target=reading.target.float(), predicted=reading.predicted.float())


def fit(readings: Readings, config: ReadoutTraining, on_step: Callable[[int, float], None] | None = None) -> Fitted:
    """Train both readouts on `readings`; `on_step` is called after each step with its number and loss.

    The same seed gives the same weights bit for bit. Raises TrainingStopped on a non-finite gradient.
    """
    width = next(readings.held_out(1)).target.shape[1]
    learner = _Learner(readings, config.decoder, width)
    shuffled_learner = _Learner(readings, config.decoder, width)
    began = time.perf_counter()
    loss = torch.zeros(())
    shuffled_loss = torch.zeros(())
    for step, reading in enumerate(readings.training()):
        latents = reading.target if config.learn_from == "target" else reading.predicted  # [M, D]
        loss = learner.learn(latents, reading, step)
        permuted = shuffled(latents, generator_for(config.seed, "readout", step))
        shuffled_loss = shuffled_learner.learn(permuted, reading, step)
        if on_step is not None:
            on_step(step + 1, float(loss))
    train_s = time.perf_counter() - began
    return Fitted(learner.readout, shuffled_learner.readout, float(loss), float(shuffled_loss), train_s)


def shuffled(latents: Tensor, generator: torch.Generator) -> Tensor:
    """[M, D] -> the same rows in other positions, by a random cycle; a single row becomes zeros."""
    if len(latents) == 1:
        return torch.zeros_like(latents)
    order = torch.randperm(len(latents), generator=generator).to(latents.device)  # [M]
    permuted = torch.empty_like(latents)
    permuted[order] = latents[order.roll(1)]
    return permuted


class _Learner:
    """A readout and its optimiser. All learners of one seed start from the same weights."""

    def __init__(self, readings: Readings, config: ReadoutConfig, latent_dim: int) -> None:
        self.train = readings.train
        self.compute = readings.compute
        seed_global(self.train.seed, "readout")
        self.readout = Readout(config, latent_dim, readings.readable.vocab).to(self.compute.device)
        self.optimizer = build_optimizer(self.readout, self.train)
        self.rate = warmup_cosine(self.train.lr, self.train.final_lr, self.train.fitted_warmup_steps)

    def learn(self, latents: Tensor, reading: TextLatents, step: int) -> Tensor:
        """One step; returns its loss, detached."""
        set_rates(self.optimizer, self.rate(Progress(step, self.train.steps)), self.train.weight_decay)
        with self.compute.autocast():
            loss = self.readout.loss(latents, reading.ids, reading.valid)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.readout.parameters(), self.train.grad_clip)
        if not torch.isfinite(norm):
            raise TrainingStopped(f"non-finite gradient at step {step} of the readout; nothing was saved. Lower lr")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()
