"""The second stage: readouts learn to turn the latents of a frozen method back into text.

One pass of the method over a batch feeds two readouts of the same size, start and batches: one is shown the latent of
each text, the other latents *shuffled between rows*. What the second gets right it owes to the language alone, so only
what the first has above it was in the latents. The method is read in eval mode without gradients and never changes.
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
    """How a readout is learned, by AdamW. What is not said here (batch size, weight decay, precision) is the run's."""

    decoder: ReadoutConfig = ReadoutConfig()
    learn_from: Literal["target", "predicted"] = "target"
    """the latents it learns to read: targets, or those predicted from the context"""
    steps: int = Field(1000, ge=1)
    """optimiser steps, each on one batch of the run's training data"""
    lr: float = Field(3e-3, gt=0)
    """peak learning rate"""
    warmup_steps: int = Field(50, ge=0)
    """steps of linear warm-up, from 0.2 of the peak"""
    eval_batches: int = Field(32, ge=1)
    """held-out batches that are scored"""
    seed: int = 0
    """of weights, order, masks and shuffling"""

    def beside(self, run: TrainConfig) -> TrainConfig:
        """The run's own training section with what is said here in its place."""
        kept = run.model_dump() | {"accumulate": 1, "devices": 1, "final_weight_decay": None}
        kept |= {"optimizer": "adamw", "optimizer_args": {}}  # which `lr` is a rate of
        return TrainConfig.load(kept | self.model_dump(include={"steps", "lr", "warmup_steps", "seed"}))


@dataclass(frozen=True)
class Fitted:
    """Two readouts that differ in one thing: whose latents they were shown beside each text."""

    readout: Readout
    shuffled: Readout
    loss: float  # nats a token, on the last training batch
    shuffled_loss: float
    train_s: float


class Readings:
    """Latents and texts of an experiment's batches, with its method frozen, on the device where it is."""

    def __init__(self, experiment: Experiment, config: ReadoutTraining) -> None:
        assert experiment.readable is not None, "the caller has asked whether there is anything to read"
        self.readable = experiment.readable
        self.train = config.beside(experiment.train)
        self.experiment = replace(experiment, train=self.train)
        self.compute = experiment.compute

    def training(self) -> Iterator[TextLatents]:
        """One reading a step."""
        return map(self._read, train_batches(self.experiment, 0))

    def held_out(self, limit_batches: int) -> Iterator[TextLatents]:
        """Of held-out batches, the same ones at every call."""
        return map(self._read, eval_batches(self.experiment, limit_batches))

    def _read(self, batch: Batch) -> TextLatents:
        with evaluating(self.experiment.method, self.compute):
            found = self.readable.read(self.experiment.method, batch.to(self.compute.device))
        return replace(found, target=found.target.float(), predicted=found.predicted.float())


def fit(readings: Readings, config: ReadoutTraining, on_step: Callable[[int, float], None] | None = None) -> Fitted:
    """Train both readouts on `readings`; `on_step` is told the number of each step that is done, and its loss.

    The same seed gives the same weights bit for bit. Raises TrainingStopped on a non-finite gradient.
    """
    width = next(readings.held_out(1)).target.shape[1]
    learner, other = _Learner(readings, config.decoder, width), _Learner(readings, config.decoder, width)
    began, loss, other_loss = time.perf_counter(), torch.zeros(()), torch.zeros(())
    for step, reading in enumerate(readings.training()):
        latents = reading.target if config.learn_from == "target" else reading.predicted  # [M, D]
        loss = learner.learn(latents, reading, step)
        other_loss = other.learn(shuffled(latents, generator_for(config.seed, "readout", step)), reading, step)
        if on_step is not None:
            on_step(step + 1, float(loss))
    return Fitted(learner.readout, other.readout, float(loss), float(other_loss), time.perf_counter() - began)


def shuffled(latents: Tensor, generator: torch.Generator) -> Tensor:
    """[M, D] -> the same rows, none in its own place (a random cycle); a row that is alone becomes zeros."""
    if len(latents) == 1:
        return torch.zeros_like(latents)
    order = torch.randperm(len(latents), generator=generator).to(latents.device)  # [M]
    moved = torch.empty_like(latents)
    moved[order] = latents[order.roll(1)]
    return moved


class _Learner:
    """A readout and its optimiser. All learners of one seed start from the same weights."""

    def __init__(self, readings: Readings, config: ReadoutConfig, latent_dim: int) -> None:
        self.train, self.compute = readings.train, readings.compute
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
