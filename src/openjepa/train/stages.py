"""A run's last part can belong to the predictor alone: everything else rests, and the learning rate starts afresh.

Above a representation that moves, a predictor learns what is coarse. Above one at rest it learns the finer part in a
few hundred steps, and they need no backward pass through the encoder (figures in docs/lab-log.md).
Source of the fresh start: warm restarts, Loshchilov & Hutter 2017.
"""

from __future__ import annotations

from torch import nn

from openjepa.core.errors import ConfigError
from openjepa.core.method import Method, Progress


def within_stage(progress: Progress, steps_of_all: int) -> Progress:
    """Where a step stands in its own stage, which is what the learning rate follows."""
    if progress.step < steps_of_all:
        return Progress(progress.step, steps_of_all)
    return Progress(progress.step - steps_of_all, progress.total_steps - steps_of_all)


def predictor_of(method: Method) -> nn.Module:
    """The method's predictor. Raises ConfigError if it has none."""
    predictor = getattr(method, "predictor", None)
    if not isinstance(predictor, nn.Module):
        raise ConfigError(f"train.predictor_only: {type(method).__name__} has no predictor; set it to 0")
    return predictor


def rest_all_but_predictor(method: Method) -> None:
    """Only the predictor's parameters need gradients from now on; those that never did stay as they are."""
    own = set(predictor_of(method).parameters())
    for parameter in method.parameters():
        if parameter not in own:
            parameter.requires_grad_(False)
