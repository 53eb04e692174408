"""Defects planted in what a recipe is given, its batches, so that recipes stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from openjepa.core.experiment import Experiment, Sample
from openjepa.data.text.masked import MaskedText, Tokens
from openjepa.preflight.checks import check_experiment, failed

STILL = ("momentum.start=1", "momentum.final=1")  # settings of a teacher that does not follow its student


def failing(experiment: Experiment, change: Callable[[Any], Any] = lambda batch: batch) -> list[str]:
    """Names of the laws that fail on the changed batches."""

    def collate(rows: Sequence[Sample]) -> Any:
        return change(experiment.collate(rows))

    return [result.name for result in failed(check_experiment(replace(experiment, collate=collate)))]


def shows_the_hidden(batch: Any) -> Any:
    """The hidden positions are among those that the context encoder reads."""
    if isinstance(batch, MaskedText):
        parts = [(part.at, part.valid, part.segment) for part in (batch.visible_tokens, batch.hidden_tokens)]
        return replace(batch, visible_tokens=Tokens(*(torch.cat(pair, 1) for pair in zip(*parts, strict=True))))
    at = torch.cat([batch.context_at, batch.hidden_at], 1)
    return replace(batch, context_at=at, context_valid=torch.cat([batch.context_valid, batch.hidden_valid], 1))


def asks_for_one_position(batch: Any) -> Any:
    """All predictions of a row are asked for at its first position."""
    if isinstance(batch, MaskedText):
        return replace(batch, position=batch.position.index_fill(0, batch.hidden_segments, 0))
    return replace(batch, hidden_at=torch.zeros_like(batch.hidden_at))
