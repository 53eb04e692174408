"""Learning rates of parts: every parameter once, the innermost request counts, schedules scale."""

from __future__ import annotations

import pytest
from torch import nn

from openjepa.core.config import TrainConfig
from openjepa.core.lr_scale import lr_scales, scale_lr
from openjepa.training.optim import build_optimizer, set_rates


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), nn.Linear(4, 1))


def test_without_a_request_all_scales_are_one() -> None:
    scales = lr_scales(model())
    assert set(scales.values()) == {1.0}
    assert len(scales) == 8


def test_the_innermost_request_counts_and_frozen_parameters_have_none() -> None:
    method = model()
    scale_lr(method, 0.5)
    scale_lr(method[1], 0.01)
    method[2].requires_grad_(False)
    scales = lr_scales(method)
    assert {scales[p] for p in method[0].parameters()} == {0.5}
    assert {scales[p] for p in method[1].parameters()} == {0.01}
    assert not any(p in scales for p in method[2].parameters())


def test_each_group_gets_its_share_of_the_rate() -> None:
    method = model()
    scale_lr(method[1], 0.01)
    optimizer = build_optimizer(method, TrainConfig())
    set_rates(optimizer, lr=0.5, weight_decay=0.3)
    rate_of = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate_of) == 8
    for part, lr in ((0, 0.5), (1, 0.005), (2, 0.5)):
        assert [rate_of[p] for p in method[part].parameters()] == pytest.approx([lr, lr] * (1 + (part == 1)))
    decay_of = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert all(decay == (0.3 if p.ndim > 1 else 0.0) for p, decay in decay_of.items())
