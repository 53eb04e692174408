"""Log lines: means over all steps since the last one, over accumulated batches and over ranks.

The loss of a single micro-batch varies by more than a run improves between two log lines, and a rank has only a part of
the batch. Sums stay on the device and are read once a log line, so other steps need no synchronisation. A checkpoint
between two log lines keeps the sums, so a resumed run writes the same line as an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.method import StepOutput

NORM = "grad_norm"
STEPS = "steps"
COUNTS = ("tokens", "samples", "batches", STEPS)


class LogWindow:
    """Sums since the last log line. All ranks must call the same methods: reading sums is an all-reduce."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        precise = fabric.device.type != "mps"  # which has no double precision
        self.dtype = torch.float64 if precise else torch.float32
        self.restart()

    def restart(self) -> None:
        self.sums: dict[str, Tensor] = {}  # of the loss, its terms and the gradient norm: scalars on the device
        self.counts = dict.fromkeys(COUNTS, 0)
        self.norm_max: Tensor | None = None
        self.began = time.perf_counter()

    def skip(self, overhead_s: float) -> None:
        """Leave out time spent on health checks and checkpoints."""
        self.began += overhead_s

    def add_batch(self, batch: Batch, output: StepOutput) -> None:
        """Add a micro-batch of this rank, still on the host (to count it there), and the method's output for it."""
        self.counts["tokens"] += batch.tokens
        self.counts["samples"] += batch.size
        self.counts["batches"] += 1
        self._add("loss", output.loss)
        for name, term in output.terms.items():
            self._add(f"loss_{name}", term)

    def add_step(self, norm: Tensor) -> None:
        """Add the gradient norm of a step before clipping; it is the same on all ranks."""
        self.counts[STEPS] += 1
        self._add(NORM, norm)
        norm = norm.detach()
        self.norm_max = norm if self.norm_max is None else torch.maximum(self.norm_max, norm)

    def close(self, lr: float, weight_decay: float) -> dict[str, float]:
        """Return a log line (means of the loss, its terms and the gradient norm, rates and speed) and restart.

        A term that some batches lack counts as 0 there, so terms add up to the loss.
        """
        totals = self._totals()
        span_s = time.perf_counter() - self.began
        batches = totals["batches"]
        losses = {name: totals[name] / batches for name in self.sums if name != NORM}
        stats = {
            **losses,
            "lr": lr,
            "weight_decay": weight_decay,
            NORM: totals[NORM] / totals[STEPS],
            f"{NORM}_max": self._norm_max(),
            "tokens": totals["tokens"],
            "tokens_per_s": totals["tokens"] / span_s,
            "samples": totals["samples"],
            "samples_per_s": totals["samples"] / span_s,
            "batch_s": span_s * self.fabric.world_size / batches,
        }
        self.restart()
        return stats

    def state(self) -> dict[str, Any]:
        """The state of an unfinished window for a checkpoint; empty right after a log line."""
        if not self.counts[STEPS]:
            return {}
        span_s = time.perf_counter() - self.began
        return {"totals": self._totals(), "norm_max": self._norm_max(), "span_s": span_s}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`. Rank 0 takes the totals of all ranks, the others begin at 0."""
        if not state:
            return
        share = float(self.fabric.is_global_zero)
        totals = {name: share * total for name, total in state["totals"].items()}
        self.counts = {name: int(totals.pop(name)) for name in COUNTS}
        self.sums = {name: self._scalar(total) for name, total in totals.items()}
        self.norm_max = torch.tensor(state["norm_max"], device=self.fabric.device)
        self.began = time.perf_counter() - state["span_s"]

    def _add(self, name: str, value: Tensor) -> None:
        total = self.sums.get(name)
        self.sums[name] = value.detach().to(self.dtype) if total is None else total + value.detach()

    def _totals(self) -> dict[str, float]:
        """Sums and counts over all ranks; waits for the device."""
        values = torch.stack([*self.sums.values(), *(self._scalar(count) for count in self.counts.values())])
        if self.fabric.world_size > 1:
            values = self.fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(values, Tensor)
        return dict(zip([*self.sums, *self.counts], values.tolist(), strict=True))

    def _norm_max(self) -> float:
        assert self.norm_max is not None, "a window is read after at least one step"
        return float(self.norm_max)

    def _scalar(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=self.dtype, device=self.fabric.device)
