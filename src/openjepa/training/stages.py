"""A run's last part can belong to the predictor alone: all else is frozen, and the learning rate starts afresh.

Above a representation that moves, a predictor learns what is coarse. Above a frozen one it learns the finer part in a
few hundred steps, and they need no backward pass through the encoder (figures in docs/lab-log.md).
Source of the fresh start: warm restarts, Loshchilov & Hutter 2017.
"""

from __future__ import annotations

from openjepa.core.config import TrainConfig, fitting_warmup
from openjepa.core.method import Method, predictor_of
from openjepa.core.progress import Progress
from openjepa.core.schedules import Schedule, warmup_cosine


def learning_rate(config: TrainConfig) -> Schedule:
    """A warm-up and a cosine in each of the two parts; the first is as it would be were it the whole run."""

    def rate(progress: Progress) -> float:
        own = within_part(progress, config.joint_steps)
        warmup_steps = fitting_warmup(config.fitted_warmup_steps, own.total_steps)
        return warmup_cosine(config.lr, config.final_lr, warmup_steps)(own)

    return rate


def within_part(progress: Progress, joint_steps: int) -> Progress:
    """Where a step stands in its own part of the run."""
    if progress.step < joint_steps:
        return Progress(progress.step, joint_steps)
    return Progress(progress.step - joint_steps, progress.total_steps - joint_steps)


def freeze_all_but_predictor(method: Method) -> None:
    """Only the predictor's parameters need gradients from now on. Modes stay: what has dropout still drops."""
    own = set(predictor_of(method).parameters())
    for parameter in method.parameters():
        if parameter not in own:
            parameter.requires_grad_(False)
