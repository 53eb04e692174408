"""Normalisations that turn the teacher's latents into targets. Statistics are in fp32 whatever the precision.

Without a normalisation the scale of the targets is the scale of the loss, and shrinking both is the easiest way to
lower it. `layer_norm` removes the scale of each vector, `standardize` that of each dimension over the batch (and also
what all rows share). Targets never carry a gradient: every function here returns a detached tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig
from openjepa.core.distributed import sum_over_ranks
from openjepa.core.errors import UserError
from openjepa.core.locate import Wanted, named_function

TargetNorm = Callable[[Tensor, Tensor | None], Tensor]  # latents [..., D], valid [...] -> targets [..., D]

VARIANCE_FLOOR = 1e-6  # added to variances: a dead dimension becomes 0, not noise blown up to unit size


class TargetConfig(BaseConfig):
    """Which layers of the teacher are predicted, and their normalisation."""

    FIRST = ("norm",)

    norm: str = "layer_norm"
    """none | layer_norm | standardize | package.module:function"""
    layers: int = Field(1, ge=1)
    """1 = one layer as it is; more = the mean of that many, each layer-normed (data2vec)"""
    skip_top: int = Field(0, ge=0)
    """layers left out from the top: the lowest of all are the word embeddings, which distinguish parts of a text"""

    @property
    def is_top_layer(self) -> bool:
        """Whether targets are made of the top layer alone."""
        return self.layers == 1 and self.skip_top == 0


def target_layers(config: TargetConfig, states: Sequence[Tensor], cut: int = 0) -> Sequence[Tensor]:
    """The teacher's layers, lowest first, that targets are made of; the top `cut` are not in `states`.

    Raises UserError if the teacher has too few.
    """
    depth = len(states) + cut
    last = depth - config.skip_top
    if last < config.layers:
        raise UserError(
            f"targets from {config.layers} layers below the top {config.skip_top} do not exist in a model that has "
            f"{depth}, its word embeddings counted: lower target.layers or target.skip_top"
        )
    return states[last - config.layers : last]


def make_targets(config: TargetConfig, states: Sequence[Tensor], valid: Tensor | None = None) -> Tensor:
    """Targets from the chosen layers of the teacher: layers x [..., D], valid [...] bool -> [..., D] fp32, detached.

    Raises UserError for an unknown normalisation.
    """
    return named_target_norm(config.norm)(merged(states), valid)


def merged(states: Sequence[Tensor]) -> Tensor:
    """One layer as it is, more as the mean of their normed outputs: k x [..., D] -> [..., D]."""
    return states[0] if len(states) == 1 else mean_of_layers(states)


def none(latents: Tensor, valid: Tensor | None = None) -> Tensor:
    """The latents unchanged, [..., D] -> [..., D]; only fp32 and detached."""
    return latents.detach().float()


def layer_norm(latents: Tensor, valid: Tensor | None = None) -> Tensor:
    """Zero mean and unit variance over D within each vector, no affine, [..., D] -> [..., D].

    Every vector that is not constant gets norm sqrt(D). Source: I-JEPA, Assran et al. 2023 (targets).
    """
    values = latents.detach().float()
    return F.layer_norm(values, values.shape[-1:], eps=VARIANCE_FLOOR)


def global_moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [D] of the rows [N, D] of all ranks together; of no rows at all, zeros."""
    count = sum_over_ranks(rows.new_full((), float(rows.shape[0]))).clamp(min=1)
    mean = sum_over_ranks(rows.sum(dim=0)) / count  # [D]
    variance = sum_over_ranks((rows - mean).square().sum(dim=0)) / count  # [D], around the global mean: no cancellation
    return mean, variance


def standardize(latents: Tensor, valid: Tensor | None = None) -> Tensor:
    """Zero mean and unit variance in each dimension over all rows of the global batch, [..., D] -> [..., D].

    All leading axes are rows, on all ranks together; `valid` [...] bool is False on padding, which is shifted
    and scaled like the rest but not counted. Every rank must call it, with any number of rows: the result does not
    depend on how they are spread. Costs two all-reduces of D floats.
    """
    values = latents.detach().float()
    rows = values.reshape(-1, values.shape[-1]) if valid is None else values[valid]  # [N, D]
    mean, variance = global_moments(rows)
    return (values - mean) * torch.rsqrt(variance + VARIANCE_FLOOR)


def mean_of_layers(states: Sequence[Tensor]) -> Tensor:
    """Mean of layers' outputs, each layer-normed without affine: k x [..., D] -> [..., D].

    Source: data2vec, Baevski et al. 2022, section 3.3.
    """
    return torch.stack([layer_norm(state) for state in states]).mean(dim=0)


WANTED = Wanted(
    ("latents [..., D]", "valid [...] or None"),
    "a tensor [..., D] without a gradient",
    lambda found, latents, _: isinstance(found, Tensor) and found.shape == latents.shape and not found.requires_grad,
)
TARGET_NORMS: dict[str, TargetNorm] = {"none": none, "layer_norm": layer_norm, "standardize": standardize}


def named_target_norm(name: str) -> TargetNorm:
    """The normalisation called `name` above, or any "package.module:function". Raises UserError for an unknown name."""
    return named_function("target normalisation", name, TARGET_NORMS, WANTED)
