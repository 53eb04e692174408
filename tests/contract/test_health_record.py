"""A health record of T-JEPA, worked out again row by row and in plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import pdist
from torch import Tensor

from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.progress import Progress
from openjepa.data.loading.loader import eval_batches, train_batches
from openjepa.data.text.masked import MaskedText
from openjepa.health.monitor import HealthMonitor
from openjepa.recipes.t_jepa import TJEPA
from openjepa.training.optim import build_optimizer
from tests.tiny import build_tiny

STEPS = 3


class Worked(NamedTuple):
    """Of one batch: M hidden spans and B texts."""

    predicted: np.ndarray  # [M, D]
    target: np.ndarray  # [M, D]
    copied: np.ndarray  # [M, D]
    student: np.ndarray  # [B, D]
    teacher: np.ndarray  # [B, D]


def trained(folder: Path) -> Experiment:
    """A tiny T-JEPA after a few steps, so that student and teacher differ."""
    experiment = build_tiny(folder, "train.steps=10", "train.batch_size=40", "data.eval_fraction=0.2")
    optimizer = build_optimizer(experiment.method, experiment.train)
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    batches = train_batches(experiment, 0)
    for step in range(STEPS):
        experiment.method(next(batches)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        experiment.method.after_step(Progress(step, 10))
    return experiment


def worked_out(method: TJEPA, batch: MaskedText) -> Worked:
    """One text, one span, one token at a time."""
    target, copied, student, teacher = [], [], [], []
    for ids, valid, hidden in zip(batch.ids, batch.valid, batch.hidden, strict=True):
        text = ids[valid]
        whole = tokens(method.teacher, text)  # [T, D]
        student.append(tokens(method.student, text).mean(0))
        teacher.append(whole.mean(0))
        visible = [at for at in range(len(text)) if not hidden[at]]
        for span in spans(hidden.tolist()):
            target.append(tokens(method.teacher, ids[span]).mean(0))
            nearest = [min(visible, key=lambda seen, at=at: (abs(seen - at), seen)) for at in span]
            copied.append(whole[nearest].mean(0))
    rows = [torch.stack(part).numpy() for part in (target, copied, student, teacher)]
    return Worked(method.predict_from_context(batch).numpy(), unit(rows[0]), unit(rows[1]), rows[2], rows[3])


def tokens(encoder: torch.nn.Module, ids: Tensor) -> Tensor:
    """Latents [T, D] of a text [T] read by itself."""
    return encoder(ids[None], torch.ones(1, len(ids), dtype=torch.bool))[0]


def spans(hidden: list[bool]) -> list[list[int]]:
    """Positions of each run of hidden tokens."""
    found: list[list[int]] = []
    for at, is_hidden in enumerate(hidden):
        if is_hidden and at and hidden[at - 1]:
            found[-1].append(at)
        elif is_hidden:
            found.append([at])
    return found


def unit(rows: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance in each dimension, over the batch."""
    return (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-6)


def test_a_record_is_what_its_definitions_say(tmp_path: Path) -> None:
    experiment = trained(tmp_path)
    method, batches = experiment.method, list(eval_batches(experiment))
    assert isinstance(method, TJEPA)
    assert len(batches) > 1
    record = HealthMonitor(batches).check(method, Progress(STEPS, 10))
    with evaluating(method):
        parts = [worked_out(method, batch) for batch in batches if isinstance(batch, MaskedText)]
    every = Worked(*(np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True)))

    def skill(guess: np.ndarray) -> float:
        return 1 - ((every.predicted - every.target) ** 2).sum() / ((guess - every.target) ** 2).sum()

    singular = np.linalg.svd(every.student - every.student.mean(0), compute_uv=False)
    share = singular / singular.sum()
    rank = np.exp(-(share * np.log(share)).sum())
    student, teacher = (rows - rows.mean(0) for rows in (every.student, every.teacher))
    losses = [F.smooth_l1_loss(torch.tensor(p.predicted), torch.tensor(p.target)).item() for p in parts]
    expected = {
        "step": STEPS,
        "samples": len(every.student),
        "skill": skill(every.target.mean(0)),
        "skill_copy": skill(every.copied),
        "rank": rank,
        "rank_frac": rank / min(every.student.shape),
        "mean_cosine": 1 - pdist(every.student, "cosine").mean(),
        "scale": np.linalg.norm(every.student, axis=1).mean(),
        "target_std": every.target.std(0, ddof=1).mean(),
        "teacher_distance": ((student - teacher) ** 2).sum() / ((student**2).sum() + (teacher**2).sum()),
        "loss_prediction": np.mean(losses),
        "score": max(0.0, skill(every.target.mean(0))) * rank / min(every.student.shape),
    }
    found = {name: record[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert record["teacher_distance"] > 1e-4  # a fresh copy would hide which of the two is which
