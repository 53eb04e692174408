"""Views of a document: its sentences with some left out, in another order, or only the first ones.

A transform is a pure function of a list of sentences and a generator; it returns a new list that never is empty. They
compose, so that a recipe which learns from two views of a text builds both from one `ViewsConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import Field

from openjepa.core.config import BaseConfig

Transform = Callable[[Sequence[str], torch.Generator], list[str]]


class ViewsConfig(BaseConfig):
    """What is done to a document's sentences, in this order. The defaults change nothing."""

    delete: float = Field(0.0, ge=0, lt=1)
    """share of the sentences left out, drawn anew for each view"""
    shuffle: bool = False
    """put the sentences in random order"""
    truncate: int = Field(0, ge=0)
    """sentences kept, from the start; after a shuffle these are random ones; 0 = all"""


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
    """Leave out exactly round(ratio * n) of n sentences, at least one staying; 0 <= ratio < 1. Order is kept."""
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio={ratio} must be at least 0 and below 1")

    def delete(sentences: Sequence[str], generator: torch.Generator) -> list[str]:
        n = len(sentences)
        kept = max(1, n - round(ratio * n))
        places = torch.randperm(n, generator=generator)[:kept].sort().values
        return [sentences[place] for place in places.tolist()]

    return _not_empty(delete)


def shuffle_sentences() -> Transform:
    """Put the sentences in an order drawn uniformly from all n! orders."""

    def shuffle(sentences: Sequence[str], generator: torch.Generator) -> list[str]:
        return [sentences[place] for place in torch.randperm(len(sentences), generator=generator).tolist()]

    return _not_empty(shuffle)


def truncate(max_sentences: int) -> Transform:
    """Keep the first `max_sentences` >= 1 sentences. Draws nothing."""
    if max_sentences < 1:
        raise ValueError(f"max_sentences={max_sentences} must be at least 1")
    return _not_empty(lambda sentences, generator: list(sentences[:max_sentences]))


def compose(*transforms: Transform) -> Transform:
    """One after the other, from left to right; of nothing, a copy."""

    def composed(sentences: Sequence[str], generator: torch.Generator) -> list[str]:
        view = list(sentences)
        for transform in transforms:
            view = transform(view, generator)
        return view

    return _not_empty(composed)


def _not_empty(transform: Transform) -> Transform:
    def checked(sentences: Sequence[str], generator: torch.Generator) -> list[str]:
        if not sentences:
            raise ValueError("a view needs at least one sentence")
        return transform(sentences, generator)

    return checked
