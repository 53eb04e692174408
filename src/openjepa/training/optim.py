"""Parameter groups and rates of the optimiser: weight decay for matrices, none for vectors, no frozen parameters.

The optimisers themselves are in `training.optimizers`.
"""

from __future__ import annotations

import torch
from torch import nn

from openjepa.core.config import TrainConfig
from openjepa.core.lr_scale import lr_scales
from openjepa.core.schedules import Schedule, constant, cosine
from openjepa.training.optimizers import hidden_matrices, make_optimizer


def parameter_groups(method: nn.Module) -> list[dict]:
    """Groups of any optimiser: `decay` (tensors of 2 or more dimensions) and `no_decay` (biases, norms, vectors).

    Two for each scale of the learning rate that parts of the method have (`core.lr_scale`).
    """
    scales = lr_scales(method)
    groups = []
    for scale in sorted(set(scales.values()), reverse=True):
        params = [p for p, its_scale in scales.items() if its_scale == scale]
        groups += [
            {"name": "decay", "lr_scale": scale, "params": [p for p in params if p.ndim >= 2]},
            {"name": "no_decay", "lr_scale": scale, "params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def build_optimizer(method: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimiser over the trainable parameters; by default fused AdamW (Loshchilov & Hutter 2019).

    Raises ConfigError for arguments that it does not take.
    """
    return make_optimizer(config, parameter_groups(method), hidden_matrices(method))


def weight_decay_schedule(config: TrainConfig) -> Schedule:
    if config.final_weight_decay is None:
        return constant(config.weight_decay)
    return cosine(config.weight_decay, config.final_weight_decay)


def set_rates(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Write this step's learning rate and weight decay into the groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        if group["name"] == "decay":
            group["weight_decay"] = weight_decay
