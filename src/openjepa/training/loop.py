"""The training loop. Device, precision and DDP come from Fabric; everything else is visible here, in order:

rates -> (forward, backward) x accumulate -> clip -> finite check -> step -> EMA -> log -> health -> checkpoint -> stop?

A non-finite gradient stops the run before it is applied. Hooks only observe; training does not depend on them. The
content of a log line is defined in `training.window`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule

from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.errors import TrainingStopped
from openjepa.core.experiment import Experiment
from openjepa.core.method import Hook, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.rundir import RunDir
from openjepa.core.seeding import seed_global
from openjepa.data.loading.loader import TrainBatches, train_batches
from openjepa.training import checkpoint
from openjepa.training.finite import FiniteGuard, require_finite_weights
from openjepa.training.launcher import require_devices, require_launched
from openjepa.training.nested import Draw, nested_dimensions
from openjepa.training.optim import build_optimizer, set_rates, weight_decay_schedule
from openjepa.training.stages import freeze_all_but_predictor, learning_rate
from openjepa.training.stopping import StopRequests, stopped_by
from openjepa.training.window import LogWindow


class Health(Protocol):
    """The interface of a health monitor for the loop."""

    def check(
        self,
        method: Method,
        progress: Progress,
        to_device: Callable[[Batch], Batch],
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> dict[str, Any]:
        """Judge the method now: a record with at least `status`, `score`, `evidence` and `advice`."""
        ...


@dataclass
class TrainResult:
    """The result of training: steps, time, tokens, last loss and last health record."""

    steps: int
    train_s: float
    tokens: int
    loss: float = math.nan  # mean of the last log line
    health: dict[str, Any] = field(default_factory=dict)


def make_fabric(config: TrainConfig) -> Fabric:
    """Fabric for this config, without its greetings. More than one device means DDP (gloo on CPUs, NCCL on GPUs).

    Raises UserError if a launcher has started another number of processes.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    require_launched(config.devices)
    require_devices(config.accelerator, config.devices)
    strategy = "ddp" if config.devices > 1 else "auto"
    return Fabric(accelerator=config.accelerator, devices=config.devices, strategy=strategy, precision=config.precision)


def fit(
    fabric: Fabric,
    experiment: Experiment,
    run: RunDir,
    hooks: Sequence[Hook] = (),
    health: Health | None = None,
    start_from: Path | None = None,
    rate: float = 1.0,
) -> TrainResult:
    """Train `experiment` into `run`, from the checkpoint `start_from` on, with `rate` times the learning rate.

    Raises NonFinite, TrainingStopped on a collapse if so configured, and StoppedBySignal.
    """
    with contextlib.ExitStack() as stack:
        draw_dimensions = stack.enter_context(nested_dimensions(experiment))
        stopping = stack.enter_context(StopRequests(experiment.train.checkpoint_seconds))
        return _fit(fabric, experiment, run, hooks, health, start_from, rate, draw_dimensions, stopping, stack)


def _fit(
    fabric: Fabric,
    experiment: Experiment,
    run: RunDir,
    hooks: Sequence[Hook],
    health: Health | None,
    start_from: Path | None,
    rate: float,
    draw_dimensions: Draw,
    stopping: StopRequests,
    stack: contextlib.ExitStack,
) -> TrainResult:
    config = experiment.train
    # a checkpoint of the last joint step still has the optimiser of all parts
    predictor_only = start_from is not None and checkpoint.step_of(start_from) > config.joint_steps
    method, optimizer = _set_up(fabric, experiment, predictor_only)
    start, bookmark = 0, None
    if start_from is not None:
        start = checkpoint.load(start_from, experiment.method, optimizer)
        bookmark = checkpoint.load_bookmark(start_from)
    rates = learning_rate(config), weight_decay_schedule(config)
    pin = fabric.device.type == "cuda"  # copies to the device overlap with computation
    batches = train_batches(experiment, start, fabric.global_rank, fabric.world_size, bookmark, pin)
    stack.callback(batches.close)
    window = LogWindow(fabric)
    guard = FiniteGuard(fabric.device)
    checkpointer = _Checkpointer(fabric, experiment, run, health, optimizer, batches, window, rate)
    if start == 0:
        checkpointer.check(Progress(0, config.steps))
    result = TrainResult(start, 0.0, 0)
    window.restart()  # its clock
    if start_from is not None:
        window.restore(checkpoint.load_window(start_from))
    began = time.perf_counter()
    for step in range(start, config.steps):
        draw_dimensions(step)
        progress = Progress(step, config.steps)
        if step == config.joint_steps:
            method, optimizer = _set_up(fabric, experiment, predictor_only=True)
            checkpointer.optimizer = optimizer
        lr, weight_decay = rate * rates[0](progress), rates[1](progress)
        set_rates(optimizer, lr, weight_decay)
        seed_global(config.seed, "step", step, fabric.global_rank)
        output = _forward_backward(fabric, method, batches, config.accumulate, progress, window, guard)
        norm = fabric.clip_gradients(method, optimizer, max_norm=config.grad_clip, error_if_nonfinite=False)
        assert norm is not None  # it is None for clipping by value only
        guard.check(norm, experiment.method, step)
        window.add_step(norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        experiment.method.after_step(progress)

        done = Progress(step + 1, config.steps)
        last = done.step == config.steps
        logs, judged = (last or done.step % every == 0 for every in (config.log_every, config.health_every))
        saved = last or (config.checkpoint_every > 0 and done.step % config.checkpoint_every == 0)
        stop_signal, due = stopping.agreed()
        if logs or judged or saved or due or stop_signal:
            guard.require()
        if logs:
            stats = window.close(lr, weight_decay)
            result.tokens += int(stats["tokens"])
            result.loss = stats["loss"]
            for hook in hooks:
                hook(done, output, stats)
        overhead_s = checkpointer.overhead_s
        if judged:
            checkpointer.check(done)
        if saved:
            checkpointer.check(done)
        if saved or due or stop_signal:  # the latter two are not judged: health is logged at the same steps in any case
            checkpointer.save(done)
            stopping.saved()
        window.skip(checkpointer.overhead_s - overhead_s)
        checkpointer.stop_if_collapsed(done)
        if stop_signal and not last:
            raise stopped_by(stop_signal, done.step, run.path)
    result.steps = config.steps
    result.health = checkpointer.record
    result.train_s = time.perf_counter() - began - checkpointer.overhead_s
    return result


def _set_up(
    fabric: Fabric, experiment: Experiment, predictor_only: bool
) -> tuple[_FabricModule, torch.optim.Optimizer]:
    """The method and a new optimiser, for this device and these ranks; `predictor_only` freezes all other parts."""
    if predictor_only:
        freeze_all_but_predictor(experiment.method)
    method, optimizer = fabric.setup(experiment.method, build_optimizer(experiment.method, experiment.train))
    method.train()
    return method, optimizer


def _forward_backward(
    fabric: Fabric,
    method: _FabricModule,
    batches: Iterator[Batch],
    accumulate: int,
    progress: Progress,
    window: LogWindow,
    guard: FiniteGuard,
) -> StepOutput:
    """Gradients of the mean loss of the next `accumulate` batches; ranks are synchronised on the last one only."""
    for micro in range(accumulate):
        batch = replace(next(batches), progress=progress)
        without_sync = fabric.no_backward_sync(method) if micro < accumulate - 1 else contextlib.nullcontext()
        with without_sync:
            output: StepOutput = method(batch.to(fabric.device))
            fabric.backward(output.loss / accumulate)
        window.add_batch(batch, output)
        guard.add_batch(progress.step, batch.keys, output.loss)
    return output


class _Checkpointer:
    """Makes health checks and checkpoints, and measures the time they take."""

    def __init__(
        self,
        fabric: Fabric,
        experiment: Experiment,
        run: RunDir,
        health: Health | None,
        optimizer: torch.optim.Optimizer,
        batches: TrainBatches,
        window: LogWindow,
        rate: float,
    ) -> None:
        self.fabric, self.experiment, self.run, self.health, self.optimizer = fabric, experiment, run, health, optimizer
        self.batches, self.window, self.rate = batches, window, rate
        self.record: dict[str, Any] = {}
        self.checked_step = -1
        self.best_score = checkpoint.best_score(run.checkpoints)
        self.overhead_s = 0.0

    def check(self, progress: Progress) -> None:
        if self.health is None or self.checked_step == progress.step:
            return
        began = time.perf_counter()
        device = self.fabric.device
        self.record = self.health.check(
            self.experiment.method, progress, lambda batch: batch.to(device), self.fabric.autocast
        )
        self.checked_step = progress.step
        self.overhead_s += time.perf_counter() - began

    def save(self, progress: Progress) -> None:
        """Raises NonFinite, on every rank, if the weights are not to be saved."""
        began = time.perf_counter()
        require_finite_weights(self.experiment.method, progress.step)
        window = self.window.state()
        if self.fabric.is_global_zero:
            folder, config = self.run.checkpoints, self.experiment.train
            bookmark = self.batches.bookmark(progress.step)
            checkpoint.save(folder, progress.step, self.experiment.method, self.optimizer, bookmark, window, self.rate)
            if self.checked_step == progress.step and self.record["score"] >= self.best_score:
                self.best_score = self.record["score"]
                checkpoint.mark_best(folder, progress.step, self.best_score)
            checkpoint.prune(folder, config.keep_checkpoints)
        self.fabric.barrier()
        self.overhead_s += time.perf_counter() - began

    def stop_if_collapsed(self, progress: Progress) -> None:
        stopping = self.experiment.train.on_collapse == "stop" and self.checked_step == progress.step
        if stopping and self.record.get("status") == "collapsed":
            self.save(progress)
            raise TrainingStopped(
                f"collapsed at step {progress.step} ({self.record['evidence']}); {self.record['advice']} "
                f"The run so far is in {self.run.path}"
            )
