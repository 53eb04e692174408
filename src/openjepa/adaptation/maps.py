"""Linear maps in closed form: whitening within documents, and the document's latent predicted from a part's.

**Whitening.** z = C^(-1/2) (x - m) with C = (1 - s) W + s tr(W) / D I, then unit length. A direction in which the parts
of one document differ counts less, one in which they agree more. These are the directions of linear two-view VICReg
(Balestriero & LeCun 2022), those of linear discriminants with documents as classes, scaled to unit variance within
documents; with labels it is WCCN (Hatch et al. 2006). The axes are turned so that the first ones tell documents apart
best: cosines stay what they are, and the first dimensions alone are the best short vectors.

**Predictor.** P = (A + r tr(A) / D I)^(-1) B with A = mean z z^T and B = mean z d^T over parts z and the latents d of
their documents: ridge regression from a part to its document, a linear JEPA whose target is frozen. A query is short
like a part and searches for documents, so it is read as unit(q + c q P), with c = 1 / root mean square of |z P|.
Documents stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from openjepa.adaptation.statistics import Statistics
from openjepa.evals.features import unit_rows

SHRINKAGE = 0.6
RIDGE = 0.03


@dataclass(frozen=True)
class Whitening:
    """z = unit((x - mean) matrix)."""

    mean: np.ndarray  # [D]
    matrix: np.ndarray  # [D, D], its columns by falling variance between documents

    @classmethod
    def fitted(cls, statistics: Statistics, shrinkage: float = SHRINKAGE) -> Whitening:
        """Of the covariance within documents; `shrinkage` 0 to 1, 1 = only the mean is subtracted, up to scale."""
        covariance = statistics.covariance
        dim = len(covariance)
        shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / dim * np.eye(dim)
        values, vectors = np.linalg.eigh(shrunk)
        root = (vectors / np.sqrt(values)) @ vectors.T  # C^(-1/2)
        _, axes = np.linalg.eigh(root @ statistics.between @ root)
        return cls(statistics.mean, root @ axes[:, ::-1])

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """Unit latents [N, D] -> [N, D] float64 unit rows; zero rows stay zero."""
        mapped = unit_rows((latents.astype(np.float64) - self.mean) @ self.matrix)
        mapped[~latents.any(axis=1)] = 0
        return mapped


@dataclass
class PredictorSums:
    """Sums for the predictor, over parts and their documents in the space in which they are searched."""

    dim: int
    parts: int = 0
    of_parts: np.ndarray = field(init=False)  # [D, D] sum of z z^T
    with_documents: np.ndarray = field(init=False)  # [D, D] sum of z d^T

    def __post_init__(self) -> None:
        self.of_parts = np.zeros((self.dim, self.dim))
        self.with_documents = np.zeros((self.dim, self.dim))

    def add(self, parts: np.ndarray, documents: np.ndarray) -> None:
        """Add parts [P, D] and the document [P, D] of each."""
        self.parts += len(parts)
        self.of_parts += parts.T @ parts
        self.with_documents += parts.T @ documents

    def predictor(self, ridge: float = RIDGE) -> np.ndarray:
        """P [D, D]."""
        moments = self.of_parts / self.parts
        shrunk = moments + ridge * np.trace(moments) / self.dim * np.eye(self.dim)
        return np.linalg.solve(shrunk, self.with_documents / self.parts)

    def query_map(self, ridge: float = RIDGE) -> np.ndarray:
        """[D, D]: q [I + c P], before it is scaled to unit length. c is from the root mean square of |z P|."""
        predictor = self.predictor(ridge)
        mean_square = np.trace(predictor.T @ self.of_parts @ predictor) / self.parts
        return np.eye(self.dim) + predictor / np.sqrt(mean_square)
