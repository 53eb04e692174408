"""The training loop. Device, precision and DDP come from Fabric; everything else is visible here, in order:

rates -> (forward, backward) x accumulate -> clip -> finite check -> step -> EMA -> log -> health -> checkpoint -> stop?

A non-finite gradient stops the run before it is applied. Hooks only observe; training does not depend on them. The
content of a log line is defined in `training.window`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from openjepa.core.config import TrainConfig
from openjepa.core.experiment import Experiment
from openjepa.core.method import Hook, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.rundir import RunDir
from openjepa.core.seeding import seed_global
from openjepa.data.loading.loader import train_batches
from openjepa.training import checkpoint
from openjepa.training.checkpointer import Checkpointer, Health
from openjepa.training.finite import FiniteGuard
from openjepa.training.launcher import require_devices, require_launched
from openjepa.training.nested import Draw, nested_dimensions
from openjepa.training.optim import build_optimizer, set_rates, weight_decay_schedule
from openjepa.training.stages import freeze_all_but_predictor, learning_rate
from openjepa.training.stopping import StopRequests, stopped_by
from openjepa.training.window import LogWindow


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
    lr_factor: float = 1.0,
) -> None:
    """Train `experiment` into `run`, from the checkpoint `start_from` on, at `lr_factor` times `train.lr`.

    Raises NonFinite, TrainingStopped on a collapse if so configured, and StoppedBySignal.
    """
    with contextlib.ExitStack() as stack:
        draw_dimensions = stack.enter_context(nested_dimensions(experiment))
        stopping = stack.enter_context(StopRequests(experiment.train.checkpoint_seconds))
        loop = _Loop(fabric, experiment, run, hooks, health, start_from, lr_factor, stopping)
        stack.callback(loop.batches.close)
        loop.steps(draw_dimensions)


class _Loop:
    """The steps of a run from its start or from a checkpoint on, and what is done after each of them."""

    def __init__(
        self,
        fabric: Fabric,
        experiment: Experiment,
        run: RunDir,
        hooks: Sequence[Hook],
        health: Health | None,
        start_from: Path | None,
        lr_factor: float,
        stopping: StopRequests,
    ) -> None:
        self.fabric = fabric
        self.experiment = experiment
        self.run = run
        self.hooks = hooks
        self.start_from = start_from
        self.lr_factor = lr_factor
        self.stopping = stopping
        self.config = experiment.train
        self.lr = learning_rate(self.config)
        self.weight_decay = weight_decay_schedule(self.config)
        # a checkpoint of the last joint step still has the optimiser of all parts
        alone = start_from is not None and checkpoint.step_of(start_from) > self.config.joint_steps
        self.method, self.optimizer = _set_up(fabric, experiment, predictor_only=alone)
        self.start = 0
        bookmark = None
        if start_from is not None:
            self.start = checkpoint.load(start_from, experiment.method, self.optimizer)
            bookmark = checkpoint.load_bookmark(start_from)
        pin = fabric.device.type == "cuda"  # copies to the device overlap with computation
        self.batches = train_batches(experiment, self.start, fabric.global_rank, fabric.world_size, bookmark, pin)
        self.window = LogWindow(fabric)
        self.guard = FiniteGuard(fabric.device)
        self.checkpointer = Checkpointer(
            fabric, experiment, run, health, self.optimizer, self.batches, self.window, lr_factor
        )

    def steps(self, draw_dimensions: Draw) -> None:
        """Train to the end."""
        steps = self.config.steps
        if self.start == 0:
            self.checkpointer.check(Progress(0, steps))
        self.window.restart()  # its clock
        if self.start_from is not None:
            self.window.restore(checkpoint.load_window(self.start_from))
        for step in range(self.start, steps):
            draw_dimensions(step)
            if step == self.config.joint_steps:
                self._train_predictor_alone()
            output = self._step(Progress(step, steps))
            self._after_step(Progress(step + 1, steps), output)

    def _train_predictor_alone(self) -> None:
        self.method, self.optimizer = _set_up(self.fabric, self.experiment, predictor_only=True)
        self.checkpointer.optimizer = self.optimizer

    def _step(self, progress: Progress) -> StepOutput:
        """One step of the optimiser; the output of its last batch."""
        set_rates(self.optimizer, self.lr_factor * self.lr(progress), self.weight_decay(progress))
        seed_global(self.config.seed, "step", progress.step, self.fabric.global_rank)
        output = self._forward_backward(progress)
        norm = self._clip_gradients(progress.step)
        self.window.add_step(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.experiment.method.after_step(progress)
        return output

    def _clip_gradients(self, step: int) -> Tensor:
        """Clip to `train.grad_clip`, and return the norm before it; a non-finite one is found first."""
        learned = [parameter for parameter in self.experiment.method.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in learned if parameter.grad is not None])
        self.guard.check(norm, self.experiment.method, step)
        clip_grads_with_norm_(learned, self.config.grad_clip, norm.nan_to_num(posinf=1.0))  # where deferred: zeros
        return norm

    def _forward_backward(self, progress: Progress) -> StepOutput:
        """Gradients of the mean loss of the next `accumulate` batches; ranks are synchronised on the last one only."""
        accumulate = self.config.accumulate
        for micro in range(accumulate):
            batch = replace(next(self.batches), progress=progress)
            is_last = micro == accumulate - 1
            with contextlib.nullcontext() if is_last else self.fabric.no_backward_sync(self.method):
                output: StepOutput = self.method(batch.to(self.fabric.device))
                self.fabric.backward(output.loss / accumulate)
            self.window.add_batch(batch, output)
            self.guard.add_batch(progress.step, batch.keys, output.loss)
        return output

    def _after_step(self, done: Progress, output: StepOutput) -> None:
        """Log line, health check and checkpoint, where they are due; raises if the run has to stop here."""
        config = self.config
        checkpointer = self.checkpointer
        is_last = done.step == config.steps
        logs = is_last or done.step % config.log_every == 0
        judged = is_last or done.step % config.health_every == 0
        saved = is_last or (config.checkpoint_every > 0 and done.step % config.checkpoint_every == 0)
        stop_signal, due = self.stopping.agreed()
        if logs or judged or saved or due or stop_signal:
            self.guard.require()
        if logs:
            self._log(done, output)
        overhead_s = checkpointer.overhead_s
        if judged or saved:
            checkpointer.check(done)
        if saved or due or stop_signal:  # the latter two are not judged: health is logged at the same steps in any case
            checkpointer.save(done)
            self.stopping.saved()
        self.window.skip(checkpointer.overhead_s - overhead_s)
        checkpointer.stop_if_collapsed(done)
        if stop_signal and not is_last:
            raise stopped_by(stop_signal, done.step, self.run.path)

    def _log(self, done: Progress, output: StepOutput) -> None:
        before = Progress(done.step - 1, done.total_steps)  # the rates that this step was taken with
        stats = self.window.close(self.lr_factor * self.lr(before), self.weight_decay(before))
        for hook in self.hooks:
            hook(done, output, stats)


def _set_up(
    fabric: Fabric, experiment: Experiment, predictor_only: bool
) -> tuple[_FabricModule, torch.optim.Optimizer]:
    """The method and a new optimiser, for this device and these ranks; `predictor_only` freezes all other parts."""
    if predictor_only:
        freeze_all_but_predictor(experiment.method)
    method, optimizer = fabric.setup(experiment.method, build_optimizer(experiment.method, experiment.train))
    method.train()
    return method, optimizer
