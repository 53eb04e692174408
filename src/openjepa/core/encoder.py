"""The interface of every encoder: a network from inputs to latents, layer by layer, of known width and input length."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

Modality = Literal["text", "image"]


@runtime_checkable
class Encoder(Protocol):
    """Text and vision encoders, built in or pretrained, and their frozen or averaged copies.

    Text encoders are called with (ids [B, T], valid [B, T], positions [B, T] or nothing), vision encoders with (images
    [B, 3, S, S], patches [B, V] or nothing, valid [B, V] or nothing); see `TextEncoder.states` and `ViT.states`.
    """

    @property
    def dim(self) -> int:
        """Width D of the latents."""
        ...

    @property
    def max_len(self) -> int:
        """Most tokens or patches T that it reads at once."""
        ...

    @property
    def modality(self) -> Modality:
        """The modality of its inputs."""
        ...

    def states(self, *inputs: Any, **options: Any) -> list[Tensor]:
        """All layers, each [B, T, D]: what the trunk reads first, the encoder's output last."""
        ...

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """The last layer [B, T, D]."""
        ...

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """`forward`, as torch calls it."""
        ...
