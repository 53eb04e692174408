"""Optimisers by name: adamw, sgd, muon, lars, or a class as package.module:Class.

`train.lr`, `train.weight_decay` and their schedules apply to all of them, and so do the learning rates of parts
(`core.lr_scale`). All other arguments come from `train.optimizer_args` and are checked against the class's signature,
so that a misspelt one is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.core.config import TrainConfig
from openjepa.core.errors import ConfigError, UserError, did_you_mean
from openjepa.core.locate import locate_function

Groups = Sequence[dict[str, Any]]
SET_ELSEWHERE = {"params": None, "lr": "train.lr", "weight_decay": "train.weight_decay"}
ADAM = {**SET_ELSEWHERE, "betas": "train.betas"}


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling: SGD whose step is relative to the size of each weight matrix.

        ratio = trust_coefficient * |w| / (|g| + weight_decay * |w| + eps)
        v <- momentum * v + lr * ratio * (g + weight_decay * w)
        w <- w - v

    `ratio` is 1 where |w| or |g| is 0, and for tensors of one dimension (biases and norms). Source: You, Gitman &
    Ginsburg 2017, equation 6 and algorithm 1. Raises ValueError for arguments below 0.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
        }
        for name, value in defaults.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0 (given: {value})")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step, without synchronising with the device."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: Tensor, grad: Tensor, group: Mapping[str, Any]) -> None:
        update = grad.add(weight, alpha=group["weight_decay"])
        if weight.ndim > 1:
            update = update * trust_ratio(weight, grad, group)
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        velocity = state["velocity"].mul_(group["momentum"]).add_(update, alpha=group["lr"])
        weight.sub_(velocity)


def trust_ratio(weight: Tensor, grad: Tensor, group: Mapping[str, Any]) -> Tensor:
    """The scalar factor of a matrix's step, see `LARS`."""
    weight_norm = weight.norm()
    grad_norm = grad.norm()
    ratio = group["trust_coefficient"] * weight_norm / (grad_norm + group["weight_decay"] * weight_norm + group["eps"])
    return torch.where((weight_norm > 0) & (grad_norm > 0), ratio, torch.ones_like(ratio))


class Combined(torch.optim.Optimizer):
    """Several optimisers with disjoint parameters that step, are saved and are restored as one.

    Its groups are theirs, the same dicts: a rate that is set here applies there.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        assert closure is None, "the training loop computes gradients before the step"
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises ValueError where the state is not of these parts."""
        states = state_dict.get("parts", [])
        if len(states) != len(self.parts):
            raise ValueError(f"a state of {len(self.parts)} optimisers is needed, and this one has {len(states)}")
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # loading makes new dicts


def make_optimizer(config: TrainConfig, groups: Groups, hidden: set[Tensor]) -> torch.optim.Optimizer:
    """The configured optimiser over `groups`; `hidden` are the matrices that Muon may take.

    Raises ConfigError naming the setting for an unknown argument, or one that the optimiser does not accept.
    """
    common = {"lr": config.lr, "weight_decay": config.weight_decay}
    match config.optimizer:
        case "adamw":
            args = {"fused": True, **_checked(config, torch.optim.AdamW, ADAM)}
            return _made(config, torch.optim.AdamW, groups, **common, betas=config.betas, **args)
        case "sgd":
            return _made(config, torch.optim.SGD, groups, **common, **_checked(config, torch.optim.SGD))
        case "lars":
            return _made(config, LARS, groups, **common, **_checked(config, LARS))
        case "muon":
            return _muon_and_adamw(config, groups, hidden, common)
    named = _located(config.optimizer)
    accepted = _parameters(named)
    if accepted is not None and "lr" not in accepted:
        raise ConfigError(f"train.optimizer: {config.optimizer} takes no lr, which the schedule has to set")
    if accepted is not None and "weight_decay" not in accepted:
        if config.weight_decay or config.final_weight_decay:
            raise ConfigError(f"train.optimizer: {config.optimizer} has no weight decay; set train.weight_decay=0")
        del common["weight_decay"]
    return _made(config, named, groups, **common, **_checked(config, named))


def require_optimizer(config: TrainConfig) -> None:
    """Raises ConfigError or UserError if the configured optimiser cannot be made: before data is read."""
    matrix = nn.Parameter(torch.zeros(2, 2))
    vector = nn.Parameter(torch.zeros(2))
    groups = [
        {"name": "decay", "lr_scale": 1.0, "params": [matrix]},
        {"name": "no_decay", "lr_scale": 1.0, "params": [vector], "weight_decay": 0.0},
    ]
    make_optimizer(config, groups, {matrix})


def hidden_matrices(method: nn.Module) -> set[Tensor]:
    """Trainable weights of two dimensions that are neither embeddings nor in the first or last layer of a part.

    Parts are the method's members (encoder, predictor, projector). Their first layer reads inputs and their last one
    gives outputs: the layers that Muon's authors leave to AdamW, with embeddings, norms and biases.
    """
    matrices: set[Tensor] = set()
    for part in method.children():
        layers = [module for module in part.modules() if _trainable(module)]
        for layer in layers[1:-1]:
            if not isinstance(layer, nn.Embedding):
                matrices |= {p for name, p in _trainable(layer).items() if p.ndim == 2 and name.endswith("weight")}
    return matrices


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    """Trainable weights and biases of a module without its members' and without tables such as a mask token."""
    named = dict(module.named_parameters(recurse=False))
    return {name: p for name, p in named.items() if p.requires_grad and (name.endswith("weight") or name == "bias")}


def _muon_and_adamw(
    config: TrainConfig, groups: Groups, hidden: set[Tensor], common: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024) for hidden matrices, AdamW for everything else, under one learning rate.

    Muon's steps are scaled to the size of AdamW's (`match_rms_adamw`, Liu et al. 2025), so one rate suits both.
    """
    muon = getattr(torch.optim, "Muon", None)
    if muon is None:
        raise ConfigError(f"train.optimizer=muon needs PyTorch 2.9 or newer (this is {torch.__version__})")
    args = {"adjust_lr_fn": "match_rms_adamw", **_checked(config, muon, ADAM)}
    inside = _groups_of(groups, lambda p: p in hidden)
    outside = _groups_of(groups, lambda p: p not in hidden)
    if not inside:
        raise ConfigError("train.optimizer=muon finds no hidden matrix to train here; choose another optimiser")
    parts = [_made(config, muon, inside, **common, **args)]
    if outside:
        parts.append(torch.optim.AdamW(outside, **common, betas=config.betas, fused=True))
    return Combined(parts)


def _groups_of(groups: Groups, belongs: Callable[[Tensor], bool]) -> list[dict[str, Any]]:
    """The same groups with only the parameters that belong there; empty groups are left out."""
    parts = [{**group, "params": [p for p in group["params"] if belongs(p)]} for group in groups]
    return [group for group in parts if group["params"]]


def _located(name: str) -> type[torch.optim.Optimizer]:
    try:
        found = locate_function(name)
    except UserError as error:
        raise ConfigError(f"train.optimizer: {error}") from None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ConfigError(f"train.optimizer: {name} is no torch.optim.Optimizer")
    return found


def _parameters(optimizer: type) -> list[str] | None:
    """Names of the arguments that a class takes; None = any."""
    parameters = inspect.signature(optimizer).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters]


def _checked(
    config: TrainConfig, optimizer: type, elsewhere: Mapping[str, str | None] = SET_ELSEWHERE
) -> dict[str, Any]:
    """`train.optimizer_args`, checked against the class. Raises ConfigError naming all that it does not accept."""
    accepted = _parameters(optimizer)
    problems = list(_problems(config, accepted, elsewhere))
    if problems:
        raise ConfigError("; ".join(problems))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.optimizer_args.items()}


def _problems(config: TrainConfig, accepted: list[str] | None, elsewhere: Mapping[str, str | None]) -> Iterator[str]:
    for name in config.optimizer_args:
        if name in elsewhere:
            setting = elsewhere[name]
            yield f"train.optimizer_args: {name} is not set here" + (f"; set {setting}" if setting else "")
        elif accepted is not None and name not in accepted:
            known = [argument for argument in accepted if argument not in elsewhere]
            yield (
                f"train.optimizer_args: {config.optimizer} takes no {name!r}{did_you_mean(name, known)}; "
                f"known: {', '.join(known) or 'none'}"
            )


def _made(config: TrainConfig, optimizer: type, groups: Groups, **args: Any) -> Any:
    try:
        return optimizer([*groups], **args)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"train.optimizer={config.optimizer} cannot be made with these settings: {reason}") from error
