"""From the latents of all positions to one vector."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.core.embedding import Embedding
from openjepa.core.encoder import Encoder
from openjepa.models.transformer import gather_positions, mean_pool

StatePooling = Literal["mean", "last", "cls", "max"]


def pooled(states: Tensor, valid: Tensor | None, pooling: StatePooling) -> Tensor:
    """states [B, T, D], valid [B, T] bool (None = all positions) -> [B, D], fp32 for mean and max.

    `last` is the last valid position, `cls` the first.
    """
    match pooling:
        case "mean":
            return states.float().mean(1) if valid is None else mean_pool(states, valid)
        case "max":
            largest = states.float()
            return (largest if valid is None else largest.masked_fill(~valid[..., None], -torch.inf)).amax(1)
        case "cls":
            return states[:, 0]
        case "last":
            return states[:, -1] if valid is None else gather_positions(states, valid.sum(1, keepdim=True) - 1)[:, 0]


def described_vectors(embedding: Embedding, encoder: Encoder, batch: object) -> Tensor:
    """[B, D] the vectors that `embedding` describes, for a batch that its `inputs` made.

    `pooling` must not be "predicted", and `encoder_inputs` must be given.
    """
    assert embedding.encoder_inputs is not None, "the description does not say what the encoder reads"
    assert embedding.pooling != "predicted", "the predictor makes these vectors: call Method.embed"
    arguments, valid = embedding.encoder_inputs(batch)
    vectors = pooled(encoder(*arguments), valid, embedding.pooling)
    if embedding.maps is not None:
        vectors = embedding.maps(vectors.float())
    return F.normalize(vectors, dim=-1) if embedding.normalization == "unit" else vectors
