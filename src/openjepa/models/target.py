"""Target encoders, which make the regression targets, and their updates."""

from __future__ import annotations

import copy
from typing import Any, Literal, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig
from openjepa.core.encoder import Encoder, Modality
from openjepa.core.progress import Progress
from openjepa.core.schedules import Schedule, linear

TargetKind = Literal["ema", "self", "frozen"]


class MomentumConfig(BaseConfig):
    """How slowly the teacher follows the student."""

    FIRST = ("start", "final")

    start: float = Field(0.99, ge=0, le=1)
    """EMA momentum at the first step"""
    final: float = Field(0.9995, ge=0, le=1)
    """EMA momentum at the last step, reached on a line"""

    def schedule(self) -> Schedule:
        """Momentum as a function of progress."""
        return linear(self.start, self.final)


class WithoutGradient(nn.Module):
    """A network without gradient, always in eval mode, so that dropout cannot perturb targets.

    If it wraps an encoder, it is an encoder.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.requires_grad_(False)
        self.eval()

    @property
    def encoder(self) -> Encoder:
        """The network, where it is an encoder."""
        return cast(Encoder, self.module)

    @property
    def dim(self) -> int:
        """Width of the encoder's latents."""
        return self.encoder.dim

    @property
    def max_len(self) -> int:
        """Most tokens or patches that the encoder reads at once."""
        return self.encoder.max_len

    @property
    def modality(self) -> Modality:
        """What the encoder reads."""
        return self.encoder.modality

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode whatever the rest of the method does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.module(*inputs, **options)

    @torch.no_grad()
    def states(self, *inputs: Any, **options: Any) -> list[Tensor]:
        """All layers of the encoder, see `TextEncoder.states`."""
        return self.encoder.states(*inputs, **options)


class Frozen(WithoutGradient):
    """A network that never changes, not even by averaging."""


class EMATarget(WithoutGradient):
    """A copy of `online` that trails it: theta <- m * theta + (1 - m) * theta_online after every step.

    Buffers are copied. The update is one fused call over all parameters. Source: Tarvainen & Valpola 2017; as a JEPA
    target, Assran et al. 2023.
    """

    def __init__(self, online: nn.Module, momentum: Schedule) -> None:
        super().__init__(copy.deepcopy(online))
        self.momentum = momentum

    @torch.no_grad()
    def update(self, online: nn.Module, progress: Progress) -> None:
        """Move towards `online` by the momentum of this step; where `online` is frozen, parameters do not change."""
        if any(parameter.requires_grad for parameter in online.parameters()):
            weight = 1.0 - self.momentum(progress)
            torch._foreach_lerp_(list(self.module.parameters()), list(online.parameters()), weight)
        for copied, buffer in zip(self.module.buffers(), online.buffers(), strict=True):
            copied.copy_(buffer)


def build_target(kind: TargetKind, online: nn.Module, momentum: MomentumConfig) -> EMATarget | Frozen | None:
    """The target encoder of this kind; None where it is `online` itself, without gradient."""
    if kind == "ema":
        return EMATarget(online, momentum.schedule())
    return Frozen(copy.deepcopy(online)) if kind == "frozen" else None
