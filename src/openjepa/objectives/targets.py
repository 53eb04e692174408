"""What is done to the teacher's latents before they become targets. Statistics are in fp32 whatever the precision.

Without a normalisation the scale of the targets is the scale of the loss, and shrinking both is the cheapest way to
"learn". `layer_norm` takes the scale of each vector away, `standardize` that of each dimension over the batch (which
also takes away what all rows share). Targets never carry a gradient: every function here returns a detached tensor.
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
from openjepa.core.locate import named_function

TargetNorm = Callable[[Tensor, Tensor | None], Tensor]  # latents [..., D], valid [...] -> targets [..., D]

VARIANCE_FLOOR = 1e-6  # added to variances: a dead dimension becomes 0, not noise blown up to unit size


class TargetConfig(BaseConfig):
    """What of the teacher is predicted, and in which scale."""

    norm: str = "layer_norm"
    """none | layer_norm | standardize | package.module:function"""
    layers: int = Field(1, ge=1)
    """1 = the teacher's output; more = the mean of that many top layers, each layer-normed (data2vec)"""


def make_targets(config: TargetConfig, states: Sequence[Tensor], valid: Tensor | None = None) -> Tensor:
    """Targets from all layers of the teacher: layers x [..., D], valid [...] bool -> [..., D] fp32, detached.

    Raises UserError for an unknown normalisation or more layers than the teacher has.
    """
    latents = states[-1] if config.layers == 1 else mean_of_top(states, config.layers)
    return named_target_norm(config.norm)(latents, valid)


def none(latents: Tensor, valid: Tensor | None = None) -> Tensor:
    """The latents as they are, [..., D] -> [..., D]; only fp32 and detached."""
    return latents.detach().float()


def layer_norm(latents: Tensor, valid: Tensor | None = None) -> Tensor:
    """Zero mean and unit variance over D within each vector, no affine, [..., D] -> [..., D].

    Every vector that is not constant gets norm sqrt(D). Source: I-JEPA, Assran et al. 2023 (targets).
    """
    values = latents.detach().float()
    return F.layer_norm(values, values.shape[-1:], eps=VARIANCE_FLOOR)


def global_moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [D] of the rows [N, D] of all ranks together; of no rows at all, zeros."""
    count = sum_over_ranks(rows.new_tensor(float(rows.shape[0]))).clamp(min=1)
    mean = sum_over_ranks(rows.sum(dim=0)) / count  # [D]
    variance = sum_over_ranks((rows - mean).square().sum(dim=0)) / count  # [D], around the global mean: no cancellation
    return mean, variance


def standardize(latents: Tensor, valid: Tensor | None = None) -> Tensor:
    """Zero mean and unit variance in each dimension over all rows of the global batch, [..., D] -> [..., D].

    All leading axes are rows, on all ranks together; `valid` [...] bool tells real rows from padding, which is shifted
    and scaled like the rest but not counted. Every rank must call it, with any number of rows: the result does not
    depend on how they are spread. Costs two all-reduces of D floats.
    """
    values = latents.detach().float()
    rows = values.reshape(-1, values.shape[-1]) if valid is None else values[valid]  # [N, D]
    mean, variance = global_moments(rows)
    return (values - mean) * torch.rsqrt(variance + VARIANCE_FLOOR)


def mean_of_top(states: Sequence[Tensor], k: int) -> Tensor:
    """Mean of the last `k` layers' outputs, each layer-normed without affine: k x [B, T, D] -> [B, T, D].

    Source: data2vec, Baevski et al. 2022, section 3.3. Raises UserError unless 1 <= k <= number of layers.
    """
    if not 1 <= k <= len(states):
        raise UserError(f"targets from the top {k} layers asked of a model that has {len(states)}: lower target.layers")
    return torch.stack([layer_norm(state) for state in states[-k:]]).mean(dim=0)


TARGET_NORMS: dict[str, TargetNorm] = {"none": none, "layer_norm": layer_norm, "standardize": standardize}


def named_target_norm(name: str) -> TargetNorm:
    """The normalisation called `name` above, or any "package.module:function". Raises UserError for an unknown name."""
    return named_function("target normalisation", name, TARGET_NORMS)
