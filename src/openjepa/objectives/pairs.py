"""The loss between two modalities that predict each other, without negatives: two distances and a regulariser on each.

Targets come from EMA copies, without gradient, or are the trained sides themselves, which then move towards each other.
The regulariser keeps either side from a constant.
Source of the latter: LeJEPA, Balestriero & LeCun 2025, with the two modalities for its views.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from openjepa.core.config import BaseConfig
from openjepa.core.distributed import mean_over_ranks
from openjepa.core.pairs import PairLoss, Pairs
from openjepa.objectives.latent import mse
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer, regularize_views


class PairsConfig(BaseConfig):
    """Whole images and whole captions, predicted from each other."""

    directions: Literal["image", "both"] = "image"
    """image = only hidden patches are predicted; both = also whole images and whole captions from each other"""
    target_encoder: Literal["ema", "self"] = "ema"
    """whose latents are predicted: those of EMA copies, or those of the trained networks, with their gradient"""
    weight: float = Field(1.0, gt=0)
    """of all terms between them beside the prediction of patches"""
    spread: RegularizerConfig = RegularizerConfig(name="sigreg", weight=5.0)
    """what keeps the latents of either from collapsing"""
    dim: int = Field(64, ge=8)
    """width of the latents in which they are compared"""
    width: int = Field(256, ge=8)
    """hidden layer of the projections and of both predictors"""


def build_pair_loss(config: PairsConfig) -> PairLoss:
    """Mean squared errors "image_from_text" and "text_from_image", and the regulariser's terms as "pairs_<name>"."""
    regularizer = build_regularizer(config.spread)

    def terms(pairs: Pairs, draw: int) -> dict[str, Tensor]:
        named = {
            "image_from_text": mean_over_ranks(mse(pairs.image_from_text, pairs.image_target)),
            "text_from_image": mean_over_ranks(mse(pairs.text_from_image, pairs.text_target)),
        }
        spread = regularize_views(regularizer, (pairs.image, pairs.text), draw)
        named |= {f"pairs_{name}": term for name, term in spread.items()}
        return {name: config.weight * term for name, term in named.items()}

    return terms
