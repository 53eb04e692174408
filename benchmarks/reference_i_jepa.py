"""I-JEPA as public code writes it: the yardstick of `bench_step.py`. Plain on purpose; nothing trains with it.

The student encodes every patch of the image, and those that are to be hidden are taken away from its latents before the
predictor, which is told the hidden positions, estimates the teacher's latents of them (smooth L1 on layer-normed
targets). As there: fp32, I-JEPA's blocks drawn image by image in Python and cut to the shortest of the batch, AdamW
with its defaults, EMA from a Python loop over parameters. I-JEPA's own code takes patches away before the student, but
calls the predictor once a block; here it is called once for all of them.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from reference_parts import follow
from torch import Tensor, nn

MOMENTUM = 0.996
TARGETS = 4
TARGET_AREA, TARGET_ASPECT, CONTEXT_AREA = (0.15, 0.2), (0.75, 1.5), (0.85, 1.0)


@dataclass(frozen=True)
class Sizes:
    """Of images, encoder and predictor."""

    pixels: int
    patch: int
    dim: int
    depth: int
    heads: int
    predictor_width: int
    predictor_depth: int
    predictor_heads: int

    @property
    def side(self) -> int:
        """Patches in a row."""
        return self.pixels // self.patch


def transformer(dim: int, depth: int, heads: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), enable_nested_tensor=False)


def positions(side: int, dim: int) -> Tensor:
    """[side * side, dim] sines and cosines of rows and of columns."""
    rates = 10_000 ** (-torch.arange(dim // 4) / (dim // 4))
    angles = torch.arange(side)[:, None] * rates  # [side, dim / 4]
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # [side, dim / 2]
    return torch.cat([waves.repeat_interleave(side, 0), waves.repeat(side, 1)], 1)


class Encoder(nn.Module):
    """A ViT over all patches: images [B, 3, S, S] -> [B, N, D]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, sizes.dim, sizes.patch, sizes.patch)
        self.register_buffer("position", positions(sizes.side, sizes.dim))
        self.trunk = transformer(sizes.dim, sizes.depth, sizes.heads)

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(self.patch(images).flatten(2).transpose(1, 2) + self.position)


class Predictor(nn.Module):
    """Latents of the context [B, V, D] with their positions [B, V], and hidden positions [B, H] -> [B, H, D]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.predictor_width
        self.enter, self.leave = nn.Linear(sizes.dim, width), nn.Linear(width, sizes.dim)
        self.position, self.mask_token = nn.Embedding(sizes.side**2, width), nn.Parameter(torch.zeros(width))
        self.trunk = transformer(width, sizes.predictor_depth, sizes.predictor_heads)

    def forward(self, context: Tensor, context_at: Tensor, hidden_at: Tensor) -> Tensor:
        seen = self.enter(context) + self.position(context_at)
        asked = self.mask_token + self.position(hidden_at)
        return self.leave(self.trunk(torch.cat([seen, asked], 1))[:, context_at.shape[1] :])


class ReferenceIJEPA:
    """One training step over a batch of images [S, S, 3] uint8."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.student, self.predictor = Encoder(sizes), Predictor(sizes)
        self.teacher = copy.deepcopy(self.student).eval()
        for parameter in self.teacher.parameters():
            parameter.requires_grad = False
        self.trained = [*self.student.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        self.draw = random.Random(0)

    def step(self, images: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns the positions of the context [B, V] and the hidden ones [B, H]."""
        pixels = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1 for image in images])
        context_at, hidden_at = self.masks(len(images))
        latents = self.student(pixels)  # [B, N, D]
        predicted = self.predictor(chosen(latents, context_at), context_at, hidden_at)  # [B, H, D]
        with torch.no_grad():
            target = self.teacher(pixels)  # [B, N, D]
            target = chosen(F.layer_norm(target, target.shape[-1:]), hidden_at)  # [B, H, D]
        loss = F.smooth_l1_loss(predicted, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        follow(self.teacher, self.student, MOMENTUM)
        return context_at, hidden_at

    def masks(self, count: int) -> tuple[Tensor, Tensor]:
        """Positions of the context [B, V] and hidden ones [B, H] of each image, cut to the fewest of the batch."""
        contexts, hiddens = [], []
        for _ in range(count):
            hidden: set[int] = set()
            for _ in range(TARGETS):
                hidden |= self.block(TARGET_AREA, TARGET_ASPECT)
            hiddens.append(sorted(hidden))
            contexts.append(sorted(self.block(CONTEXT_AREA, (1.0, 1.0)) - hidden))
        shortest = [min(len(row) for row in rows) for rows in (contexts, hiddens)]
        cut = ([row[:most] for row in rows] for rows, most in zip((contexts, hiddens), shortest, strict=True))
        context_at, hidden_at = map(torch.tensor, cut)
        return context_at, hidden_at

    def block(self, area: tuple[float, float], aspect: tuple[float, float]) -> set[int]:
        """The positions of a random block."""
        side, share, stretch = self.sizes.side, self.draw.uniform(*area), self.draw.uniform(*aspect)
        height = min(side, max(1, round(side * math.sqrt(share * stretch))))
        width = min(side, max(1, round(side * math.sqrt(share / stretch))))
        top, left = self.draw.randrange(side - height + 1), self.draw.randrange(side - width + 1)
        return {side * (top + y) + left + x for y in range(height) for x in range(width)}


def chosen(latents: Tensor, at: Tensor) -> Tensor:
    """latents [B, N, D], at [B, K] -> [B, K, D]."""
    return torch.gather(latents, 1, at[..., None].repeat(1, 1, latents.shape[-1]))
