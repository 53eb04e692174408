"""Invariance and regularisation of two views of the same rows, which most recipes add to their prediction loss.

    terms = two_views(first, second, batch.draw)

The views are two parts of an input (its visible and its hidden part) or two augmentations of it. Without a regulariser
the pull would make all rows equal, so there is no pull then.
Source: VICReg, Bardes et al. 2022, eq. 6 (invariance, variance and covariance), where terms of the views are added;
here they are averaged.
"""

from __future__ import annotations

from torch import Tensor

from openjepa.core.distributed import mean_over_ranks
from openjepa.objectives.latent import mse
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer, regularize_views


class TwoViews:
    """The regulariser's terms on both views, and their mean squared error as the term "invariance"."""

    def __init__(self, regularizer: RegularizerConfig, invariance: float = 0.0) -> None:
        """`invariance` weighs the pull, beside the prediction loss."""
        self.regularizer = build_regularizer(regularizer)
        self.weight = 0.0 if regularizer.name == "none" else invariance

    @property
    def pulls(self) -> bool:
        """Whether a second view is needed: without a pull only the first one is regularised."""
        return self.weight > 0

    def __call__(self, first: Tensor, second: Tensor | None, draw: int) -> dict[str, Tensor]:
        """first [N, D], and second [N, D] where this `pulls` -> terms by name, scalars with a graph.

        `draw` is the address of the regulariser's randomness (`Batch.draw`).
        """
        if second is None:
            return self.regularizer(first, draw)
        terms = regularize_views(self.regularizer, (first, second), draw)
        return terms | {"invariance": self.weight * mean_over_ranks(mse(first, second))}
