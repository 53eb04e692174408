"""A small autoregressive decoder from one latent to text, to show what the latent encodes.

The latent is the first position, before the text; each next token is predicted from it and the tokens so far, up to an
end token that the readout adds (the ids of any tokenizer will do). The latent is layer-normed first: readouts read
directions, so the lengths of targets and predictions do not matter.

The readout's text is a lower bound of the latent's content, and a fluent text proves nothing: a decoder that has
learned the language writes one from an empty latent. Compare with a readout trained on shuffled latents
(`openjepa.readout.store`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig
from openjepa.models.transformer import Trunk


class ReadoutConfig(BaseConfig):
    """Sizes of a readout."""

    dim: int = Field(128, ge=8)
    """width"""
    depth: int = Field(2, ge=1, le=512)
    """transformer blocks"""
    heads: int = Field(4, ge=1)
    """attention heads; must divide dim"""
    max_len: int = Field(128, ge=1)
    """longest text in tokens; a longer one is cut and never counts as reproduced"""


class Aims(NamedTuple):
    """The readout's target tokens at each of T = min(L, max_len) + 1 positions."""

    ids: Tensor  # [M, T] int64, the text's tokens and the end
    real: Tensor  # [M, T] bool, False after the end
    whole: Tensor  # [M] bool, False for texts that were cut


class Readout(nn.Module):
    """Decoder-only transformer over [latent, tokens].

    Token table and output head are two matrices: tied ones train more slowly, and a readout has few steps.
    """

    def __init__(self, config: ReadoutConfig, latent_dim: int, vocab: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.max_len = config.max_len
        self.end = vocab
        self.enter = nn.Sequential(nn.LayerNorm(latent_dim), nn.Linear(latent_dim, config.dim))
        self.token = nn.Embedding(vocab + 1, config.dim)
        self.position_embedding = nn.Embedding(config.max_len + 1, config.dim)
        for table in (self.token, self.position_embedding):
            nn.init.normal_(table.weight, std=0.02)
        self.trunk = Trunk(config.dim, config.depth, config.heads)
        self.leave = nn.Linear(config.dim, vocab + 1)

    def forward(self, latents: Tensor, ids: Tensor) -> Tensor:
        """latents [M, D], ids [M, L], L <= max_len -> states [M, L + 1, W]; state t reads the latent and t tokens."""
        length = ids.shape[1] + 1
        tokens = torch.cat([self.enter(latents)[:, None], self.token(ids)], 1)  # [M, L + 1, W]
        x = tokens + self.position_embedding.weight[:length]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()  # [L + 1, L + 1]
        return self.trunk(x, causal)

    def logits(self, states: Tensor) -> Tensor:
        """states [..., W] -> [..., V + 1] fp32 logits of the next token; number V is the end."""
        return self.leave(states).float()

    def aims(self, ids: Tensor, valid: Tensor) -> Aims:
        """The target tokens of texts, ids and valid [M, L]."""
        lengths = valid.sum(1, keepdim=True)  # [M, 1]
        whole = lengths <= self.max_len  # [M, 1]
        cut = ids[:, : self.max_len]
        position = torch.arange(cut.shape[1] + 1, device=ids.device)  # [T]
        ended = F.pad(cut, (0, 1)).masked_fill(position >= lengths, self.end)  # [M, T]
        return Aims(ended, (position <= lengths) & (whole | (position < self.max_len)), whole[:, 0])

    def loss(self, latents: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        """Cross-entropy in nats a token, mean over the tokens of all texts (ids, valid [M, L]), their ends included."""
        aims = self.aims(ids, valid)
        states = self(latents, aims.ids[:, :-1])  # [M, T, W]
        return F.cross_entropy(self.logits(states[aims.real]), aims.ids[aims.real])

    def hits(self, latents: Tensor, aims: Aims) -> Tensor:
        """[M, T] bool: whether the likeliest token is the right one, given the right ones before it.

        Where all are right, greedy decoding reproduces the text, so exact match needs no decoding.
        """
        states = self(latents, aims.ids[:, :-1])  # [M, T, W]
        likeliest = self.logits(states[aims.real]).argmax(-1)  # [K]
        return torch.zeros_like(aims.real).masked_scatter(aims.real, likeliest == aims.ids[aims.real])

    def greedy(self, latents: Tensor) -> Tensor:
        """latents [M, D] -> ids [M, L] of the likeliest token at each position; `end` from each text's end on."""
        return self._decode(latents, lambda logits: logits.argmax(-1))

    def sample(
        self, latents: Tensor, generator: torch.Generator, temperature: float = 1.0, top_k: int | None = None
    ) -> Tensor:
        """latents [M, D] -> ids [M, L] drawn token by token; `end` from each text's end on.

        `temperature` > 0 divides the logits (towards 0: greedy); only the `top_k` likeliest tokens are drawn.
        """
        assert temperature > 0, "for temperature 0 use greedy()"
        assert top_k is None or top_k >= 1, "top_k must be at least 1"

        def draw(logits: Tensor) -> Tensor:
            if top_k is not None and top_k < logits.shape[-1]:
                logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
            probabilities = (logits / temperature).softmax(-1).to(generator.device)
            return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)

        return self._decode(latents, draw)

    @torch.no_grad()
    def _decode(self, latents: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Decode all texts in parallel, until each has ended or is `max_len` long; one pass a token."""
        ids = torch.empty(len(latents), 0, dtype=torch.long, device=latents.device)  # [M, 0], grows
        ended = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)  # [M]
        while ids.shape[1] < self.max_len and not ended.all():
            chosen = choose(self.logits(self(latents, ids)[:, -1])).masked_fill(ended, self.end)  # [M]
            ended |= chosen == self.end
            ids = torch.cat([ids, chosen[:, None]], 1)
        return ids
