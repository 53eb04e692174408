"""The leak audit: whether predictions depend on hidden content, on positions, and on every parameter.

A leak gives falling losses and high cosines, so curves cannot detect it. No function changes the method. Each docstring
states the good result first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.method import Latents, Method, latents_of
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.models.target import Frozen

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


@dataclass(frozen=True)
class TargetMotion:
    """Changes of the targets of one batch during training, and the names of teachers that are never updated."""

    by_training: float  # through trainable parameters themselves; 0 for a teacher
    by_after_step: float  # by `after_step`, once those have moved; above 0 for a teacher that follows its student
    stuck: list[str]  # parts without gradient that make targets, no predictions, and that after_step leaves


def leak(method: Method, batch: Batch, generator: torch.Generator) -> float:
    """0.0, bit for bit: largest change of `predict_from_context` when only the hidden content is replaced.

    Infinite if the number of predictions changed or one is not finite. Raises UserError where the audit would prove
    nothing: no hidden part, other hidden content that is the same, or predictions that differ on the same batch.
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
    predictor ignores positions. None if `Inspection.rows` is missing or no row has two predictions.
    """
    with evaluating(method):
        predicted = latents_of(method, method(batch)).predicted
        rows = method.inspect(batch).rows
    if rows is None:
        return None
    predicted = predicted.cpu().double()
    rows = rows.cpu()
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

    Zero-initialised layers may leave zeros upstream of them in a fresh method; a parameter that stays in the list after
    a few steps is never trained.
    """
    _, _, grads = _training_pass(method, batch)
    return GradientReport(
        missing=[name for name, grad in grads.items() if grad is None],
        zero=[name for name, grad in grads.items() if grad is not None and not grad.any()],
        nonfinite=[name for name, grad in grads.items() if grad is not None and not grad.isfinite().all()],
    )


def training_terms(method: Method, batch: Batch) -> dict[str, Tensor]:
    """The terms of the loss in one training pass. Raises UserError without a term, or if one is no scalar."""
    _, terms, _ = _training_pass(method, batch)
    return terms


def target_motion(method: Method, batch: Batch, progress: Progress) -> TargetMotion:
    """Nothing stuck: every teacher is updated by `after_step`, or wrapped in `Frozen`.

    A teacher is a part whose parameters get no gradient and that makes targets but no predictions. A fresh one equals
    its student, so an EMA update changes nothing; trainable parameters are therefore moved by N(0, 1) first, in a copy.
    """
    probe = copy.deepcopy(method)
    before = _targets(probe, batch)
    _shift(p for p in probe.parameters() if p.requires_grad)
    trained = _targets(probe, batch)
    moved = _changes_of_after_step(probe, progress).keys()
    followed = _targets(probe, batch)
    left = {name: part for name, part in _untrained_parts(probe).items() if not moved & part.keys()}
    return TargetMotion(
        by_training=_distance(before, trained),
        by_after_step=_distance(trained, followed),
        stuck=[name for name, part in left.items() if _makes_only_targets(part, probe, batch)],
    )


def target_requires_grad(method: Method, batch: Batch, progress: Progress) -> list[str]:
    """Empty: names of tensors through which a target could be trained towards the prediction.

    Those are targets with a graph, and parameters that `after_step` moves (the teacher's) and that get a gradient as
    well.
    """
    latents, _, grads = _training_pass(method, batch)
    attached = ["latents.target"] if latents is not None and latents.target_had_graph else []
    trained = {name for name, grad in grads.items() if grad is not None and grad.any()}
    probe = copy.deepcopy(method)
    _shift(p for p in probe.parameters() if p.requires_grad)
    return attached + sorted(trained & _changes_of_after_step(probe, progress).keys())


def _predictions(method: Method, batch: Batch) -> Tensor:
    with evaluating(method):
        return method.predict_from_context(batch)


def _differ(first: Batch, second: Batch) -> bool:
    pairs = ((getattr(first, f.name), getattr(second, f.name)) for f in fields(first))
    return any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in pairs)


def _training_pass(method: Method, batch: Batch) -> tuple[Latents | None, dict[str, Tensor], dict[str, Tensor | None]]:
    """Latents, terms and, by trainable parameter, gradients of one training pass of a copy of the method."""
    probe = copy.deepcopy(method).train()
    probe.zero_grad(set_to_none=True)
    with torch.random.fork_rng(devices=[]):
        output = probe(batch)
        loss = output.loss
        if loss.requires_grad:
            loss.backward()
    return output.latents, output.terms, {name: p.grad for name, p in probe.named_parameters() if p.requires_grad}


@torch.no_grad()
def _shift(parameters: Iterable[Tensor]) -> None:
    """Add reproducible N(0, 1) noise to the parameters."""
    generator = generator_for(0, "shift")
    for p in parameters:
        p.add_(torch.randn(p.shape, generator=generator).to(p))


def _changes_of_after_step(probe: Method, progress: Progress) -> dict[str, float]:
    """Largest change of each tensor that `after_step` moves, by name. The method is left as `after_step` leaves it."""
    before = {name: tensor.clone() for name, tensor in _tensors(probe)}
    probe.after_step(progress)
    changes = {name: float((t.detach() - before[name]).abs().max()) for name, t in _tensors(probe) if t.numel()}
    return {name: change for name, change in changes.items() if change != 0}


def _targets(method: Method, batch: Batch) -> Tensor:
    with evaluating(method):
        return latents_of(method, method(batch)).target


def _distance(first: Tensor, second: Tensor) -> float:
    """Largest difference; infinite between different shapes and where one is not finite."""
    if first.shape != second.shape or not (first.isfinite().all() and second.isfinite().all()):
        return float("inf")
    return float((first - second).abs().max()) if first.numel() else 0.0


def _untrained_parts(module: nn.Module, prefix: str = "") -> dict[str, dict[str, Tensor]]:
    """Parameters, by name, of the largest parts that have parameters but train none, except `Frozen` ones."""
    if isinstance(module, Frozen):
        return {}
    named: dict[str, Tensor] = {prefix + name: p for name, p in module.named_parameters()}
    if named and not any(p.requires_grad for p in named.values()):
        return {prefix.removesuffix("."): named}
    own = [(prefix + name, p) for name, p in module.named_parameters(recurse=False) if not p.requires_grad]
    parts: dict[str, dict[str, Tensor]] = {name: {name: p} for name, p in own}
    for name, child in module.named_children():
        parts |= _untrained_parts(child, f"{prefix}{name}.")
    return parts


def _makes_only_targets(part: dict[str, Tensor], probe: Method, batch: Batch) -> bool:
    """Whether targets change with these parameters and predictions do not. The parameters are restored."""
    originals = [p.detach().clone() for p in part.values()]
    before = _targets(probe, batch), _predictions(probe, batch)
    _shift(part.values())
    after = _targets(probe, batch), _predictions(probe, batch)
    with torch.no_grad():
        for p, original in zip(part.values(), originals, strict=True):
            p.copy_(original)
    targets, predictions = (_distance(one, other) for one, other in zip(before, after, strict=True))
    return targets > 0 and predictions == 0


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor.detach()) for name, tensor in named if tensor.is_floating_point()]
