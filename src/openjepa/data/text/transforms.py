"""Views of a document for training: its sentences with some left out, in another order, or only the first ones.

A transform is a pure function of a list of sentences (texts or their token ids) and a generator. It returns a new list
of at least two sentences, one to hide and one to see, or of one if it was given one. Held-out documents are read as
they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from pydantic import Field, model_validator

from openjepa.core.config import BaseConfig

Transform = Callable[[Sequence[Any], torch.Generator], list[Any]]

LEAST = 2  # sentences that stay


class ViewsConfig(BaseConfig):
    """Changes to the sentences of a training row, drawn anew in each epoch, in this order. Defaults: none."""

    delete: float = Field(0.0, ge=0, lt=1)
    """share of the sentences left out; two stay at least"""
    shuffle: bool = False
    """put the sentences in random order"""
    truncate: int = Field(0, ge=0)
    """sentences kept, from the start (after a shuffle, random ones), at least 2; 0 = all"""

    @model_validator(mode="after")
    def _leaves_enough(self) -> Self:
        if 0 < self.truncate < LEAST:
            raise ValueError(f"truncate={self.truncate} leaves nothing to predict from; give at least {LEAST}, or 0")
        return self


def build_view(config: ViewsConfig) -> Transform:
    """The transform that `config` describes; what it leaves at its default takes no random draw."""
    steps: list[Transform] = []
    if config.delete:
        steps.append(delete_sentences(config.delete))
    if config.shuffle:
        steps.append(shuffle_sentences())
    if config.truncate:
        steps.append(truncate(config.truncate))
    return compose(*steps)


def delete_sentences(ratio: float) -> Transform:
    """Leave out exactly round(ratio * n) of n sentences, two staying at least; 0 <= ratio < 1. Order is kept."""
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio={ratio} must be at least 0 and below 1")

    def delete(sentences: Sequence[Any], generator: torch.Generator) -> list[Any]:
        n = len(sentences)
        kept = max(min(n, LEAST), n - round(ratio * n))
        positions = torch.randperm(n, generator=generator)[:kept].sort().values
        return [sentences[position] for position in positions.tolist()]

    return _not_empty(delete)


def shuffle_sentences() -> Transform:
    """Put the sentences in an order drawn uniformly from all n! orders."""

    def shuffle(sentences: Sequence[Any], generator: torch.Generator) -> list[Any]:
        return [sentences[position] for position in torch.randperm(len(sentences), generator=generator).tolist()]

    return _not_empty(shuffle)


def truncate(max_sentences: int) -> Transform:
    """Keep the first `max_sentences` >= 2 sentences. Draws nothing."""
    if max_sentences < LEAST:
        raise ValueError(f"max_sentences={max_sentences} must be at least {LEAST}")
    return _not_empty(lambda sentences, generator: list(sentences[:max_sentences]))


def compose(*transforms: Transform) -> Transform:
    """Apply transforms from left to right; without any, copy."""

    def composed(sentences: Sequence[Any], generator: torch.Generator) -> list[Any]:
        view = list(sentences)
        for transform in transforms:
            view = transform(view, generator)
        return view

    return _not_empty(composed)


def _not_empty(transform: Transform) -> Transform:
    def checked(sentences: Sequence[Any], generator: torch.Generator) -> list[Any]:
        if not sentences:
            raise ValueError("a view needs at least one sentence")
        return transform(sentences, generator)

    return checked
