"""A guard against gradients with NaN or infinity: the run stops, and the update is not applied.

On the CPU it stops at once. On a GPU, reading the norm would synchronise host and device in every step. There the
gradients of such a step are set to zero on the device, which also records its number; the host reads it before log
lines, health checks and checkpoints, where it waits in any case. So the run stops at most `train.log_every` steps
later, and no checkpoint contains those steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.core.errors import TrainingStopped

ADVICE = "it was not applied. Lower train.lr or train.grad_clip, or try train.precision=32-true"


class FiniteGuard:
    """Checks the gradient norm of every step before the optimiser's update."""

    def __init__(self, device: torch.device, deferred: bool | None = None) -> None:
        """`deferred`: stop at the next `require`, not at once; default: on every device but the CPU."""
        self.deferred = device.type != "cpu" if deferred is None else deferred
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)  # number of the first such step

    def check(self, norm: Tensor, method: nn.Module, step: int) -> None:
        """`norm` is that of the gradients of `method` before clipping. Raises TrainingStopped unless deferred."""
        if self.deferred:
            bad = ~norm.isfinite()
            for parameter in method.parameters():
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(bad, 0.0)
            self.first_bad = torch.where(bad & (self.first_bad < 0), step, self.first_bad)
        elif not torch.isfinite(norm):
            bad_names = [n for n, p in method.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
            where = bad_names[0] if bad_names else "the norm itself"
            raise TrainingStopped(f"non-finite gradient at step {step}, in {where} first; {ADVICE}")

    def require(self) -> None:
        """Waits for the device. Raises TrainingStopped if any step so far had a non-finite gradient."""
        if self.deferred and (step := int(self.first_bad)) >= 0:
            raise TrainingStopped(f"non-finite gradient at step {step}; {ADVICE}")
