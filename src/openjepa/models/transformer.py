"""A pre-norm transformer trunk for encoders, decoders and predictors, which differ in the mask passed in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.core.encoder import Modality
from openjepa.core.errors import ConfigError
from openjepa.models.attention import attend
from openjepa.models.packing import Packing, packing_of

SUMMED_TOGETHER = 16  # tokens


class Block(nn.Module):
    """Pre-norm attention and MLP, both residual (Xiong et al. 2020)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"a width of {dim} cannot be split into {heads} heads; let `heads` divide it")
        self.heads = heads
        self.dropout = dropout
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        hidden = int(mlp_ratio * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, may_attend: Tensor | None, packing: Packing | None = None) -> Tensor:
        """x [B, T, D], or packed [N, D]; may_attend bool, broadcastable to [B, H, T, T] (None = all) -> as x."""
        qkv = self.qkv(self.norm1(x))
        if packing is None:
            mixed = self.mix(qkv, may_attend)
        else:
            mixed = packing.pack(self.mix(packing.unpack(qkv), may_attend))
        x = x + self.out(mixed)
        return x + self.mlp(self.norm2(x))

    def mix(self, qkv: Tensor, may_attend: Tensor | None) -> Tensor:
        """Attention within rows, [B, T, 3D] -> [B, T, D]."""
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, H, T, D/H]
        return attend(q, k, v, may_attend, self.dropout if self.training else 0.0).transpose(1, 2).flatten(2)


class Trunk(nn.Module):
    """A stack of blocks and a final norm."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def states(
        self, x: Tensor, may_attend: Tensor | None = None, skip_top: int = 0, real: Tensor | None = None
    ) -> list[Tensor]:
        """Outputs of all blocks, the last one normed: depth x [B, T, D]; the top `skip_top` are not computed.

        `real` [B, T] bool is True on tokens that are not padding, where `may_attend` does not define it.
        """
        packing = packing_of(may_attend, real)
        if packing is not None:
            x = packing.pack(x)
        states = []
        for block in self.blocks[: max(0, len(self.blocks) - skip_top)]:
            x = block(x, may_attend, packing)
            states.append(x)
        if not skip_top:
            states[-1] = self.norm(x)
        return states if packing is None else [packing.unpack(state) for state in states]

    def forward(self, x: Tensor, may_attend: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.states(x, may_attend)[-1]


class TextEncoder(nn.Module):
    """Token ids to latents, from scratch. Reads any subset of a text's tokens at given positions."""

    modality: Modality = "text"

    def __init__(self, vocab: int, dim: int, depth: int, heads: int, max_len: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.max_len = max_len
        self.token = nn.Embedding(vocab, dim)
        self.position_embedding = nn.Embedding(max_len, dim)
        nn.init.normal_(self.token.weight, std=0.02)
        # a fifth of the words' deviation, or texts of one length would have similar embeddings
        nn.init.normal_(self.position_embedding.weight, std=0.004)
        self.drop = nn.Dropout(dropout)
        self.trunk = Trunk(dim, depth, heads, dropout=dropout)

    def states(self, ids: Tensor, valid: Tensor, positions: Tensor | None = None, skip_top: int = 0) -> list[Tensor]:
        """ids, valid, positions [B, T] (positions default to 0..T-1) -> depth + 1 latents, each [B, T, D].

        The embeddings with their positions come first, then the output of every block, the last one normed. The top
        `skip_top` are left out, and not computed. `valid` [B, T] bool is True on real tokens; int64 is the number
        of each token's segment, which attends only to itself (negative = padding); [B, T, T] bool is an attention mask.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)  # [T]
        x = self.drop(self.token(ids) + self.position_embedding(positions))  # [B, T, D]
        return [x, *self.trunk.states(x, key_mask(valid), skip_top, real_of(valid))]

    def forward(self, ids: Tensor, valid: Tensor, positions: Tensor | None = None) -> Tensor:
        """The last layer's latents [B, T, D]."""
        return self.states(ids, valid, positions)[-1]


def key_mask(valid: Tensor) -> Tensor:
    """The attention mask, bool, broadcastable to [B, H, T, T], from `valid` as `TextEncoder.states` takes it."""
    if valid.ndim == 3:
        return valid[:, None]  # [B, 1, T, T]
    if valid.dtype == torch.bool:
        return valid[:, None, None, :]  # [B, 1, 1, T]
    return (valid[:, :, None] == valid[:, None, :])[:, None]  # [B, 1, T, T]


def real_of(valid: Tensor) -> Tensor | None:
    """Which tokens are not padding [B, T]; None for [B, T, T], which does not define it."""
    if valid.ndim == 3:
        return None
    return valid if valid.dtype == torch.bool else valid >= 0


def mean_pool(x: Tensor, valid: Tensor) -> Tensor:
    """x [B, T, D], valid [B, T] -> [B, D] fp32 mean over the valid positions."""
    weight = valid.to(torch.float32)[..., None]  # [B, T, 1]
    return (x.float() * weight).sum(1) / weight.sum(1).clamp_min(1.0)


def segment_mean(x: Tensor, segment: Tensor, position: Tensor, count: int) -> Tensor:
    """x [B, K, D] -> [N, D] fp32, the mean over the tokens of each segment; N = `count`.

    segment [B, K] int64 in [-1, N) is that of each token, position [B, K] its position in it. Tokens of segment -1 are
    left out; a segment without a token has the mean 0. Sums are made of SUMMED_TOGETHER tokens at a time, as torch's
    own are, so that rounding errors do not grow with the length of a segment.
    """
    parts = -(-x.shape[1] // SUMMED_TOGETHER)  # most of a segment
    part = torch.where(segment < 0, count * parts, segment * parts + position // SUMMED_TOGETHER).flatten()  # [B K]
    sums = x.new_zeros(count * parts + 1, x.shape[-1], dtype=torch.float32).index_add(0, part, x.flatten(0, 1).float())
    tokens = torch.zeros(count * parts + 1, device=x.device).index_add(0, part, torch.ones_like(part).float())
    total = sums[:-1].view(count, parts, x.shape[-1]).sum(1)  # [N, D]
    return total / tokens[:-1].view(count, parts).sum(1, keepdim=True).clamp_min(1.0)


def gather_positions(x: Tensor, index: Tensor) -> Tensor:
    """x [B, T, D] or [B, T], index [B, K] -> the chosen positions [B, K, D] or [B, K]."""
    if x.ndim == 2:
        return x.gather(1, index)
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
