"""A guard against NaN and infinity: the run stops, the update is not applied, and no such weights are saved.

On the CPU it stops at once. On a GPU, reading the norm would synchronise host and device in every step. There the
gradients of such a step are set to zero on the device, which also records its number; the host reads it before log
lines, health checks and checkpoints, where it waits in any case. So the run stops at most `train.log_every` steps
later, and no checkpoint contains those steps. The keys of the batches since then are kept, to tell which samples it
was.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.core.errors import NonFinite


class FiniteGuard:
    """Checks the gradient norm of every step before the optimiser's update."""

    def __init__(self, device: torch.device, deferred: bool | None = None) -> None:
        """`deferred`: stop at the next `require`, not at once; default: on every device but the CPU."""
        self.deferred = device.type != "cpu" if deferred is None else deferred
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)  # number of the first such step
        self._batches: dict[int, list[tuple[Tensor, Tensor]]] = {}  # by step: keys and loss of its batches

    def add_batch(self, step: int, keys: Tensor, loss: Tensor) -> None:
        """Keep the samples of a batch, on the host, until its step is known to be finite."""
        self._batches.setdefault(step, []).append((keys, loss.detach()))

    def check(self, norm: Tensor, method: nn.Module, step: int) -> None:
        """`norm` is that of the gradients of `method`, which are not clipped yet. Raises NonFinite unless deferred."""
        if self.deferred:
            bad = ~norm.isfinite()
            for parameter in method.parameters():
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(bad, 0.0)
            self.first_bad = torch.where(bad & (self.first_bad < 0), step, self.first_bad)
        elif not torch.isfinite(norm):
            bad_names = [n for n, p in method.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
            where = bad_names[0] if bad_names else "the norm itself"
            raise self._found(f"non-finite gradient at step {step}, in {where} first; it was not applied", step)
        else:
            self._batches.clear()

    def require(self) -> None:
        """Waits for the device. Raises NonFinite if any step so far had a non-finite gradient."""
        if self.deferred and (step := int(self.first_bad)) >= 0:
            raise self._found(f"non-finite gradient at step {step}; it was not applied", step)
        self._batches.clear()

    def _found(self, message: str, step: int) -> NonFinite:
        return NonFinite(message, step, [_record(*batch) for batch in self._batches.get(step, [])])


def require_finite_weights(method: nn.Module, step: int) -> None:
    """Raises NonFinite naming the first parameter with NaN or infinity. Waits for the device once."""
    named = [(name, p) for name, p in method.named_parameters() if p.is_floating_point()]
    if not named:
        return
    bad = (~torch.stack([parameter.detach().isfinite().all() for _, parameter in named])).nonzero().flatten().tolist()
    if bad:
        raise NonFinite(f"non-finite weights after step {step}, in {named[bad[0]][0]} first; they were not saved", step)


def _record(keys: Tensor, loss: Tensor) -> dict[str, Any]:
    value = float(loss)
    return {"keys": keys.tolist(), "loss": value if math.isfinite(value) else str(value)}  # JSON has no NaN
