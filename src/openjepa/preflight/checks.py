"""Preflight checks of any recipe on one batch, in seconds, before training.

A JEPA that leaks has better curves than any other, and an EMA that is never updated raises no error. Each check states
a rule that every recipe must keep, and measures by how much it holds. The command line and the tests use them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.compute import ON_CPU, Compute
from openjepa.core.configure import configure
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Method
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for, seed_global
from openjepa.data.loading.loader import train_batches
from openjepa.data.tokenizers.unknown_tokens import require_known
from openjepa.preflight.leakage import (
    POSITION_FLOOR,
    gradient_report,
    leak,
    position_sensitivity,
    target_motion,
    target_requires_grad,
    training_terms,
)
from openjepa.training.optim import build_optimizer

FIRST = Progress(0, 100)  # where the EMA moves most
LAST = Progress(100, 100)  # where the loss has all of its terms
MASK_TOLERANCE = 0.05  # of the realised against the configured mask ratio, over the batch


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `detail` gives the figures, and the fix where it failed."""

    name: str
    passed: bool
    detail: str


def check_recipe(
    target: str,
    preset: str | None = None,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    compute: Compute = ON_CPU,
) -> list[CheckResult]:
    """Build a recipe and check it on the device of `compute`.

    Raises UserError if it cannot be built or its data cannot be read.
    """
    module, settings = configure(target, preset, config, overrides)
    with tempfile.TemporaryDirectory() as assets:
        seed_global(settings.train.seed, "init")
        experiment = module.build(settings, BuildContext(Path(assets)))
        if experiment.unknown is not None:
            require_known(experiment.unknown())
        return check_experiment(experiment.on(compute))


def check_experiment(experiment: Experiment) -> list[CheckResult]:
    """Run all checks on the first training batch, at the progress of the last one, so that late loss terms count."""
    batch = replace(next(iter(train_batches(experiment, 0))), progress=LAST).to(experiment.compute.device)
    method = experiment.method
    checks: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
        ("masks", lambda: masks_are_sound(batch, experiment.mask_ratio, experiment.remarks())),
        ("no leak", lambda: nothing_leaks(method, batch)),
        ("positions matter", lambda: positions_matter(method, batch)),
        ("every parameter learns", lambda: every_parameter_learns(method, batch)),
        ("every parameter is optimised", lambda: every_parameter_is_optimised(experiment)),
        ("targets carry no gradient", lambda: targets_are_free(method, batch)),
        ("the target moves", lambda: targets_move(method, batch)),
        ("every term trains", lambda: every_term_trains(method, batch)),
        ("one vector per row", lambda: one_vector_per_row(method, batch)),
        ("padding changes nothing", lambda: rows_do_not_mix(method, batch)),
    ]
    with experiment.compute.autocast():
        return [_run(name, check) for name, check in checks]


def _run(name: str, check: Callable[[], tuple[bool, str]]) -> CheckResult:
    try:
        return CheckResult(name, *check())
    except UserError as error:
        return CheckResult(name, False, str(error))


def masks_are_sound(batch: Batch, ratio: float | None, remarks: Sequence[str] = ()) -> tuple[bool, str]:
    """Masks `hidden` and `valid` [B, N], if any: hidden is within valid, in no row empty or full, and has the ratio.

    `remarks` on masks that cannot follow the settings are added to the realised share.
    """
    hidden = getattr(batch, "hidden", None)
    valid = getattr(batch, "valid", None)
    if not isinstance(hidden, Tensor) or not isinstance(valid, Tensor):
        return True, "the batch has no `hidden` and `valid` masks to check"
    if bool((hidden & ~valid).any()):
        return False, f"{int((hidden & ~valid).sum())} hidden positions are padding; mask real positions only"
    counts = hidden.sum(1)  # [B]
    sizes = valid.sum(1)  # [B]
    empty = int((counts == 0).sum())
    full = int((counts >= sizes).sum())
    if empty or full:
        return False, f"{empty} rows hide nothing and {full} hide everything; every row needs at least one of each"
    realised = float(counts.sum() / sizes.sum())
    text = f"{realised:.1%} of {int(sizes.sum())} real positions hidden, {int(counts.min())}-{int(counts.max())} a row"
    text = "; ".join([text, *remarks])
    if ratio is not None and abs(realised - ratio) > MASK_TOLERANCE:
        return False, f"{text}, but the config says {ratio:.1%}"
    return True, text


def nothing_leaks(method: Method, batch: Batch) -> tuple[bool, str]:
    """Predictions are bit-identical when only hidden content changes."""
    moved = leak(method, batch, generator_for(0, "check"))
    if moved == 0:
        return True, "other hidden content, bit-identical prediction"
    return (
        False,
        f"predictions move by up to {moved:.3g} when only hidden content changes: the context view contains it",
    )


def positions_matter(method: Method, batch: Batch) -> tuple[bool, str]:
    """Predictions of one row differ from position to position."""
    spread = position_sensitivity(method, batch)
    if spread is None:
        return True, "no row has two predictions, or inspect gives no rows"
    if spread > POSITION_FLOOR:
        return True, f"predictions of one row differ by at least {spread:.2g} of their size"
    return False, f"all predictions of a row are the same (spread {spread:.2g}): add positions to the mask tokens"


def every_parameter_learns(method: Method, batch: Batch) -> tuple[bool, str]:
    """One backward pass reaches every trainable parameter."""
    report = gradient_report(method, batch)
    count = sum(p.requires_grad for p in method.parameters())
    if not report.missing and not report.nonfinite:
        zero = f"; zero at the start: {_some(report.zero)}" if report.zero else ""
        return True, f"{count} tensors get a finite gradient{zero}"
    if report.missing:
        return False, f"no gradient reaches {_some(report.missing)}; use them in the loss or set requires_grad=False"
    return False, f"non-finite gradient in {_some(report.nonfinite)}"


def every_parameter_is_optimised(experiment: Experiment) -> tuple[bool, str]:
    """The optimiser holds every trainable parameter once and no frozen one."""
    groups = build_optimizer(experiment.method, experiment.train).param_groups
    return optimizer_is_complete(experiment.method, [p for group in groups for p in group["params"]])


def optimizer_is_complete(method: nn.Module, optimised: Sequence[Tensor]) -> tuple[bool, str]:
    """`optimised` lists each trainable parameter exactly once."""
    held = [id(p) for p in optimised]
    missing = [name for name, p in method.named_parameters() if p.requires_grad and id(p) not in held]
    frozen = [name for name, p in method.named_parameters() if not p.requires_grad and id(p) in held]
    if missing or frozen or len(set(held)) < len(held):
        what = f"in no group: {_some(missing)}" if missing else f"frozen, yet in a group: {_some(frozen)}"
        return False, what if missing or frozen else "a parameter is in two groups"
    return True, f"{len(held)} tensors, each in exactly one group"


def targets_are_free(method: Method, batch: Batch) -> tuple[bool, str]:
    """No gradient flows into targets."""
    trainable = target_requires_grad(method, batch, FIRST)
    if trainable:
        return False, f"targets can be trained towards the prediction through {_some(trainable)}; stop the gradient"
    return True, "latents are detached and the target's parameters get no gradient"


def targets_move(method: Method, batch: Batch) -> tuple[bool, str]:
    """Networks without gradient that make targets are updated by `after_step`, or are declared `Frozen`."""
    motion = target_motion(method, batch, FIRST)
    if motion.stuck:
        return False, (
            f"targets are made by {_some(motion.stuck)} without gradient, and after_step leaves it where it was: move "
            "it there, and train the network it follows; or wrap it in openjepa.recipe.Frozen if it is meant to stay"
        )
    if motion.by_training > 0:
        return True, "the trained network makes the targets itself"
    if motion.by_after_step > 0:
        return True, "after_step moves it towards the trained network"
    return True, "targets stay as they are, and no network makes them but those that are Frozen"


def every_term_trains(method: Method, batch: Batch) -> tuple[bool, str]:
    """In training, each term of the loss is a finite scalar with a graph."""
    terms = training_terms(method, batch)
    idle = [name for name, term in terms.items() if not term.requires_grad]
    nonfinite = [name for name, term in terms.items() if not bool(term.isfinite().all())]
    if idle:
        return False, f"no gradient comes from {_some(idle)}: a detached term adds to the loss but trains nothing"
    if nonfinite:
        return False, f"not finite: {_some(nonfinite)}"
    values = {name: float(term.detach()) for name, term in terms.items()}
    shown = " + ".join(f"{name} {value:.4f}" for name, value in values.items())
    return True, f"loss {sum(values.values()):.4f} = {shown}"


def one_vector_per_row(method: Method, batch: Batch) -> tuple[bool, str]:
    """`embed` gives a finite [B, D]."""
    with evaluating(method):
        vectors = method.embed(batch)
    good = vectors.ndim == 2 and len(vectors) == batch.size and bool(vectors.isfinite().all())
    return good, f"embed gives {tuple(vectors.shape)} for {batch.size} rows"


def rows_do_not_mix(method: Method, batch: Batch) -> tuple[bool, str]:
    """A row's embedding does not depend on its padding."""
    padded = _with_other_padding(batch)
    if padded is None:
        return True, "no text padding in this batch"
    with evaluating(method):
        moved = float((method.embed(batch) - method.embed(padded)).abs().max())
    if moved == 0:
        return True, "other ids in the padding, bit-identical embeddings"
    return False, f"embeddings move by up to {moved:.3g} with the content of padding: mask it in attention and pooling"


def _with_other_padding(batch: Batch) -> Batch | None:
    ids = getattr(batch, "ids", None)
    valid = getattr(batch, "valid", None)
    if not isinstance(ids, Tensor) or not isinstance(valid, Tensor) or bool(valid.all()):
        return None
    return replace(batch, ids=torch.where(valid, ids, ids.flip(0).masked_fill(~valid.flip(0), int(ids.max()))))


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def failed(results: Sequence[CheckResult]) -> Iterator[CheckResult]:
    """The results of failed checks."""
    return (result for result in results if not result.passed)
