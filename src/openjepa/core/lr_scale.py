"""Learning rates of parts: a module may set a multiple of `train.lr` for its parameters.

A pretrained encoder needs a hundredth of the rate that a new predictor needs. With one rate for both, either the
predictor never learns or the encoder forgets.
"""

from __future__ import annotations

from torch import Tensor, nn

NAME = "lr_scale"


def scale_lr(module: nn.Module, scale: float) -> None:
    """Train the parameters of `module` at `scale` times the learning rate of the run."""
    setattr(module, NAME, scale)


def lr_scales(method: nn.Module) -> dict[Tensor, float]:
    """The scale of each trainable parameter; 1.0 where no module sets one. The innermost module decides."""
    scales: dict[Tensor, float] = {}
    for module in method.modules():  # parents before children
        scale = module.__dict__.get(NAME)
        for parameter in module.parameters():
            if parameter.requires_grad and (scale is not None or parameter not in scales):
                scales[parameter] = 1.0 if scale is None else scale
    return scales
