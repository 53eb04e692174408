"""Covariance of the parts of documents about the mean of their document, in one pass and in constant memory.

With x_ij the latent of part j of document i, m_i the mean of document i's, m that of all, and N parts of k documents:

    W = sum_ij (x_ij - m_i)(x_ij - m_i)^T / N         within documents
    T = sum_ij (x_ij - m)(x_ij - m)^T / N             in all
    T - W                                             between documents

Sums are float64, of deviations, so that they do not cancel. Blocks hold whole documents; sums of different blocks add
up (`merged`), so that processes can share the work, and new documents are added without reading the old ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Block:
    """Parts of some whole documents, in their order."""

    parts: np.ndarray  # [P, D] unit rows
    owner: np.ndarray  # [P] int64, number of the document of each part; ascending

    def usable(self, fewest: int = 2) -> Block:
        """Only documents of at least so many parts."""
        _, inverse, counts = np.unique(self.owner, return_inverse=True, return_counts=True)
        kept = counts[inverse] >= fewest
        return Block(self.parts[kept], self.owner[kept])


@dataclass(frozen=True)
class Statistics:
    """Sums over documents of two or more parts."""

    documents: int
    parts: int
    squared_counts: float  # sum of squared numbers of parts
    mean: np.ndarray  # [D] of all parts
    within: np.ndarray  # [D, D] scatter about the means of documents
    total: np.ndarray  # [D, D] scatter about `mean`

    @classmethod
    def empty(cls, dim: int) -> Statistics:
        """Of no documents."""
        return cls(0, 0, 0.0, np.zeros(dim), np.zeros((dim, dim)), np.zeros((dim, dim)))

    @classmethod
    def of(cls, block: Block) -> Statistics:
        """Of a block; documents of one part are left out."""
        block = block.usable()
        parts = block.parts.astype(np.float64)  # [P, D]
        if not len(parts):
            return cls.empty(parts.shape[1])
        _, inverse, counts = np.unique(block.owner, return_inverse=True, return_counts=True)
        sums = np.zeros((len(counts), parts.shape[1]))
        np.add.at(sums, inverse, parts)
        deviations = parts - (sums / counts[:, None])[inverse]  # [P, D]
        mean = parts.mean(axis=0)
        centred = parts - mean  # [P, D]
        return cls(
            documents=len(counts),
            parts=len(parts),
            squared_counts=float((counts.astype(np.float64) ** 2).sum()),
            mean=mean,
            within=deviations.T @ deviations,
            total=centred.T @ centred,
        )

    def merged(self, other: Statistics) -> Statistics:
        """Of the documents of both (Chan et al. 1979)."""
        parts = self.parts + other.parts
        if not parts:
            return self
        gap = other.mean - self.mean  # [D]
        return replace(
            self,
            documents=self.documents + other.documents,
            parts=parts,
            squared_counts=self.squared_counts + other.squared_counts,
            mean=self.mean + gap * (other.parts / parts),
            within=self.within + other.within,
            total=self.total + other.total + np.outer(gap, gap) * (self.parts * other.parts / parts),
        )

    @property
    def covariance(self) -> np.ndarray:
        """W [D, D]."""
        return self.within / max(1, self.parts)

    @property
    def between(self) -> np.ndarray:
        """T - W [D, D]."""
        return (self.total - self.within) / max(1, self.parts)

    @cached_property
    def effective_rank(self) -> float:
        """exp of the entropy of W's normalised eigenvalues (Roy & Vetterli 2007), 1 to D: how many directions the
        differences within documents use."""
        values = np.clip(np.linalg.eigvalsh(self.covariance), 0, None)
        shares = values[values > 0] / values.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))

    @property
    def cohesion(self) -> float:
        """Intraclass correlation of parts with their documents (Fisher 1925), at most 1; 0 = parts of one document are
        no more alike than any parts, as after shuffling."""
        if self.documents < 2 or self.parts <= self.documents:
            return 0.0
        within = float(np.trace(self.within))
        mean_within = within / (self.parts - self.documents)
        mean_between = (float(np.trace(self.total)) - within) / (self.documents - 1)
        size = (self.parts - self.squared_counts / self.parts) / (self.documents - 1)
        return (mean_between - mean_within) / (mean_between + (size - 1) * mean_within)
