"""When a run is judged and saved: health checks and checkpoints, and the time they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric

from openjepa.core.batch import Batch
from openjepa.core.errors import TrainingStopped
from openjepa.core.experiment import Experiment
from openjepa.core.method import Method
from openjepa.core.progress import Progress
from openjepa.core.rundir import RunDir
from openjepa.data.loading.loader import TrainBatches
from openjepa.training import checkpoint
from openjepa.training.finite import require_finite_weights
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


class Checkpointer:
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
        lr_factor: float,
    ) -> None:
        self.fabric = fabric
        self.experiment = experiment
        self.run = run
        self.health = health
        self.optimizer = optimizer
        self.batches = batches
        self.window = window
        self.lr_factor = lr_factor
        self.record: dict[str, Any] = {}
        self.checked_step = -1
        self.saved_step = -1
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
            folder = self.run.checkpoints
            config = self.experiment.train
            bookmark = self.batches.bookmark(progress.step)
            method = self.experiment.method
            checkpoint.save(folder, progress.step, method, self.optimizer, bookmark, window, self.lr_factor)
            if self.checked_step == progress.step and self.record["score"] >= self.best_score:
                self.best_score = self.record["score"]
                checkpoint.mark_best(folder, progress.step, self.best_score)
            checkpoint.prune(folder, config.keep_checkpoints)
        self.fabric.barrier()
        self.saved_step = progress.step
        self.overhead_s += time.perf_counter() - began

    def stop_if_collapsed(self, progress: Progress) -> None:
        stopping = self.experiment.train.on_collapse == "stop" and self.checked_step == progress.step
        if stopping and self.record.get("status") == "collapsed":
            if self.saved_step != progress.step:
                self.save(progress)
            raise TrainingStopped(
                f"collapsed at step {progress.step} ({self.record['evidence']}); {self.record['advice']} "
                f"The run so far is in {self.run.path}"
            )
