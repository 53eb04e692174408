"""LeJEPA's prediction loss, for any number of views of two sizes.

Every view's latent predicts the mean of the latents of the global views, which show most of the image; local views show
a small part and are no targets. Nothing here prevents collapse: that takes a regulariser.
Source: LeJEPA, Balestriero & LeCun 2025.
"""

from __future__ import annotations

from torch import Tensor


def distance_to_global_mean(views: Tensor, global_views: Tensor) -> Tensor:
    """views [V, B, D], including the G global_views [G, B, D] -> [B] squared distance to the mean of the latter.

    mean over V and D of (z_v - mean_g z_g)^2, for each image. Range [0, inf), lower is better. With two views, both
    global, it is a quarter of their mean squared error, exactly: each is half as far from their mean as from the other.
    """
    gaps = (global_views.float()[None] - views.float()[:, None]).mean(1)  # [V, B, D] mean minus view
    return gaps.square().mean(-1).mean(0)  # [B]
