"""A final stage of a run that trains only the predictor, with all else frozen and a restarted learning rate.

On a changing representation, a predictor learns the coarse part. On a frozen one it learns the finer part in a few
hundred steps, and they need no backward pass through the encoder (figures in docs/lab-log/lang-jepa-documents.md).
Source of the restart: warm restarts, Loshchilov & Hutter 2017.
"""

from __future__ import annotations

from openjepa.core.config import TrainConfig, fitting_warmup
from openjepa.core.method import Method, predictor_of
from openjepa.core.progress import Progress
from openjepa.core.schedules import Schedule, warmup_cosine


def learning_rate(config: TrainConfig) -> Schedule:
    """A warm-up and a cosine in each of the two parts, the first of them as if it were the whole run."""

    def rate(progress: Progress) -> float:
        part = within_part(progress, config.joint_steps)
        warmup_steps = fitting_warmup(config.fitted_warmup_steps, part.total_steps)
        return warmup_cosine(config.lr, config.final_lr, warmup_steps)(part)

    return rate


def within_part(progress: Progress, joint_steps: int) -> Progress:
    """Progress within the current part of the run."""
    if progress.step < joint_steps:
        return Progress(progress.step, joint_steps)
    return Progress(progress.step - joint_steps, progress.total_steps - joint_steps)


def freeze_all_but_predictor(method: Method) -> None:
    """Freeze all parameters but the predictor's. Modes do not change: dropout stays on."""
    trainable = set(predictor_of(method).parameters())
    for parameter in method.parameters():
        if parameter not in trainable:
            parameter.requires_grad_(False)
