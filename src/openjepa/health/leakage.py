"""The audit: does the prediction depend on what it must predict, on where it predicts, and on every parameter?

Falling losses and high cosines are what a leak looks like from outside, so none of these questions can be answered by a
curve. All functions leave the method as they found it. In every one, a good answer is stated first in the docstring.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.method import Latents, Method
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for

POSITION_FLOOR = 1e-4  # relative spread of predictions within a row below which they are one prediction


@dataclass(frozen=True)
class GradientReport:
    """Names of trainable parameters that one backward pass did not reach, left at exactly zero, or made NaN."""

    missing: list[str]
    zero: list[str]
    nonfinite: list[str]

    @property
    def clean(self) -> bool:
        return not (self.missing or self.zero or self.nonfinite)


def leak(method: Method, batch: Batch, generator: torch.Generator) -> float:
    """0.0, bit for bit: largest change of `predict_from_context` when only the hidden content is replaced.

    Infinite if the number of predictions changed or one is not finite. Raises UserError where the audit would prove
    nothing: no hidden part, other hidden content that is the same, or predictions that differ on the very same batch.
    """
    changed = batch.with_other_hidden(generator)
    if not _differ(batch, changed):
        raise UserError("with_other_hidden changed nothing in the batch: the leak audit would prove nothing")
    first, again, other = (_predictions(method, b) for b in (batch, batch, changed))
    if first.numel() == 0:
        raise UserError("predict_from_context made no prediction: nothing is hidden in this batch")
    if not torch.equal(first, again) and first.isfinite().all():
        raise UserError("predict_from_context gives two answers to one batch: draw its randomness from the batch")
    if first.shape != other.shape or not (first.isfinite().all() and other.isfinite().all()):
        return float("inf")
    return float((first - other).abs().max())


def position_sensitivity(method: Method, batch: Batch) -> float | None:
    """Above POSITION_FLOOR: the least spread of the predictions within a row, relative to their size.

    min over rows of sqrt(mean_d Var) / rms of all predictions; 0 = a row's predictions are all the same, so the
    predictor does not know where it predicts. None if `Inspection.rows` is missing or no row has two predictions.
    """
    with evaluating(method):
        latents, rows = method(batch).latents, method.inspect(batch).rows
    if rows is None or latents is None:
        return None
    predicted, rows = latents.predicted.cpu().double(), rows.cpu()
    _, index, counts = rows.unique(return_inverse=True, return_counts=True)
    if not bool((counts > 1).any()):
        return None
    size = predicted.square().mean().sqrt().clamp(min=1e-30)
    means = predicted.new_zeros(len(counts), predicted.shape[1]).index_add_(0, index, predicted) / counts[:, None]
    squares = (predicted - means[index]).square().mean(dim=1)  # [M]
    variances = squares.new_zeros(len(counts)).index_add_(0, index, squares) / counts  # [rows]
    return float(variances[counts > 1].min().sqrt() / size)


def gradient_report(method: Method, batch: Batch) -> GradientReport:
    """Clean: every trainable parameter gets a finite gradient, not zero throughout, from one training pass.

    Zero-initialised layers may leave zeros upstream of them in a fresh method; a name that stays in the list after a
    few steps is never learned.
    """
    _, grads = _training_pass(method, batch)
    return GradientReport(
        missing=[name for name, grad in grads.items() if grad is None],
        zero=[name for name, grad in grads.items() if grad is not None and not grad.any()],
        nonfinite=[name for name, grad in grads.items() if grad is not None and not grad.isfinite().all()],
    )


def target_moves(method: Method, progress: Progress) -> float:
    """Above 0 for an EMA target: largest change that `after_step` makes once the online network has moved.

    A fresh teacher equals its student, and averaging equals changes nothing; so trainable parameters are moved by
    N(0, 1) first, in a copy. 0.0 is right only for methods without a moving target.
    """
    return max(_moved_by_after_step(method, progress).values(), default=0.0)


def target_requires_grad(method: Method, batch: Batch, progress: Progress) -> list[str]:
    """Empty: names through which a target could be trained towards the prediction.

    Those are targets that came with a graph, and parameters that `after_step` moves (the teacher's) and that the loss
    gives a gradient as well.
    """
    latents, grads = _training_pass(method, batch)
    attached = ["latents.target"] if latents is not None and latents.target_had_graph else []
    trained = {name for name, grad in grads.items() if grad is not None and grad.any()}
    return attached + sorted(trained & _moved_by_after_step(method, progress).keys())


def _predictions(method: Method, batch: Batch) -> Tensor:
    with evaluating(method):
        return method.predict_from_context(batch)


def _differ(first: Batch, second: Batch) -> bool:
    pairs = ((getattr(first, f.name), getattr(second, f.name)) for f in fields(first))
    return any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in pairs)


def _training_pass(method: Method, batch: Batch) -> tuple[Latents | None, dict[str, Tensor | None]]:
    """Latents and, by trainable parameter, gradients of one training pass of a copy of the method."""
    probe = copy.deepcopy(method).train()
    probe.zero_grad(set_to_none=True)
    with torch.random.fork_rng(devices=[]):
        output = probe(batch)
        output.loss.backward()
    return output.latents, {name: p.grad for name, p in probe.named_parameters() if p.requires_grad}


def _moved_by_after_step(method: Method, progress: Progress) -> dict[str, float]:
    """Largest change of each tensor that `after_step` moves, in a copy whose trainable parameters were moved first."""
    probe = copy.deepcopy(method)
    generator = generator_for(0, "target_moves")
    with torch.no_grad():
        for p in probe.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator).to(p))
    before = {name: tensor.clone() for name, tensor in _tensors(probe)}
    probe.after_step(progress)
    changes = {name: float((t.detach() - before[name]).abs().max()) for name, t in _tensors(probe) if t.numel()}
    return {name: change for name, change in changes.items() if change != 0}


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor.detach()) for name, tensor in named if tensor.is_floating_point()]
