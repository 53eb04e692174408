"""Model2Vec: a table with one vector a token, distilled from a run; no network is left, and the vectors differ.

Each token is read by the encoder as a text of its own, the vectors are turned onto their principal axes and weighted by
how rare the token is if its rank in the vocabulary is by frequency (Zipf): Tulkens and van Dongen 2024 (Model2Vec).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from openjepa.evals.features import inner_products, unit_rows
from openjepa.evals.scores import spearman_rows
from openjepa.export.source import Source
from openjepa.models.pooling import described_vectors

ROWS_AT_ONCE = 1024
MOST_DIMS = 256
SMOOTHING = 1e-4  # of the weights by rarity, as in SIF (Arora et al. 2017)


def write_static(source: Source, folder: Path) -> None:
    """Write a folder that `model2vec.StaticModel.from_pretrained` opens."""
    from model2vec import StaticModel

    table = token_vectors(source)  # [V, D]
    axes = min(MOST_DIMS, table.shape[1])
    projected = _principal(table, axes)
    rank = np.arange(2, len(projected) + 2)
    probability = (1 / rank) / (1 / rank).sum()
    weighted = projected * (SMOOTHING / (SMOOTHING + probability))[:, None]
    special = [number for number in source.tokenizer.special_ids if number < len(weighted)]
    weighted[special] = 0
    tokenizer = Tokenizer.from_str(source.tokenizer.backend.to_str())
    StaticModel(weighted.astype(np.float32), tokenizer, normalize=True).save_pretrained(folder)


def token_vectors(source: Source) -> np.ndarray:
    """[V, D] the embedding of each token, read as a text of its own."""
    before, after = source.wrapping
    rows = [np.array([*before, number, *after], dtype=np.int32) for number in range(source.tokenizer.vocab_size)]
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), ROWS_AT_ONCE):
            batch = source.texts.collate(rows[start : start + ROWS_AT_ONCE])
            found.append(described_vectors(source.embedding, source.encoder, batch).float().cpu().numpy())
    return np.concatenate(found)


def _principal(table: np.ndarray, axes: int) -> np.ndarray:
    """[V, D] -> [V, axes], centred and turned onto its principal axes."""
    centered = table - table.mean(0)
    _, _, directions = np.linalg.svd(centered, full_matrices=False)
    return centered @ directions[:axes].T


def kept_order(original: np.ndarray, static: np.ndarray) -> float:
    """Spearman correlation of the cosines of all pairs, in [-1, 1], higher better: how much of the order is kept."""
    pairs = np.triu_indices(len(original), 1)
    first, second = (inner_products(rows, rows)[pairs] for rows in (unit_rows(original), unit_rows(static)))
    return float(spearman_rows(first[None], second[None])[0])
