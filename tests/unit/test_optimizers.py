"""Optimisers by name: closed forms, arguments that are checked, one rate for all, and one state for several."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from openjepa.cli import main
from openjepa.core.config import TrainConfig
from openjepa.core.errors import ConfigError
from openjepa.core.lr_scale import scale_lr
from openjepa.recipes import lang_jepa
from openjepa.training.optim import build_optimizer, parameter_groups, set_rates
from openjepa.training.optimizers import LARS, Combined, hidden_matrices, require_optimizer
from tests.tiny import TINY, build_image, build_nano, build_tiny, build_views, build_vl

EVERY = ("adamw", "sgd", "muon", "lars", "torch.optim:NAdam")


def model() -> nn.Module:
    """Two parts, as a method has them: an encoder that starts with an embedding, and a predictor."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    return nn.ModuleDict({"encoder": encoder, "predictor": nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))})


def give_gradients(method: nn.Module, draw: int = 0) -> None:
    generator = torch.Generator().manual_seed(draw)
    for parameter in method.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def config(optimizer: str, **more) -> TrainConfig:
    return TrainConfig(optimizer=optimizer, lr=0.1, **more)


def after_steps(method: nn.Module, settings: TrainConfig, steps: int) -> list[Tensor]:
    optimizer = build_optimizer(method, settings)
    for step in range(steps):
        set_rates(optimizer, settings.lr, settings.weight_decay)
        give_gradients(method, step)
        optimizer.step()
    return [p.detach().clone() for p in method.parameters()]


def test_the_default_is_fused_adamw_bit_for_bit() -> None:
    first, second = model(), model()
    reference = torch.optim.AdamW(parameter_groups(second), lr=0.1, betas=(0.9, 0.95), weight_decay=0.04, fused=True)
    ours = after_steps(first, TrainConfig(lr=0.1), 3)
    for step in range(3):
        give_gradients(second, step)
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, second.parameters(), strict=True))


def test_lars_is_the_closed_form_of_its_paper() -> None:
    w, b = torch.tensor([[3.0, 4.0]]), torch.tensor([1.0])  # |w| = 5
    g, c = torch.tensor([[0.0, 2.0]]), torch.tensor([0.5])  # |g| = 2
    weight, bias = nn.Parameter(w.clone()), nn.Parameter(b.clone())
    lr, momentum, decay, trust = 0.5, 0.9, 0.1, 0.02
    groups = [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = LARS(groups, lr=lr, momentum=momentum, weight_decay=decay, trust_coefficient=trust)
    v, u = torch.zeros_like(w), torch.zeros_like(b)
    for _ in range(3):
        weight.grad, bias.grad = g, c
        optimizer.step()
        ratio = trust * w.norm() / (g.norm() + decay * w.norm())
        v = momentum * v + lr * ratio * (g + decay * w)
        u = momentum * u + lr * c  # no trust ratio and no decay for a vector
        w, b = w - v, b - u
    torch.testing.assert_close(weight.data, w)
    torch.testing.assert_close(bias.data, b)


@pytest.mark.parametrize(("weight", "grad"), [(0.0, 1.0), (1.0, 0.0)])
def test_lars_without_a_norm_takes_the_plain_step(weight: float, grad: float) -> None:
    parameter = nn.Parameter(torch.full((2, 2), weight))
    parameter.grad = torch.full((2, 2), grad)
    LARS([parameter], lr=0.5, momentum=0.0).step()
    assert torch.equal(parameter.data, torch.full((2, 2), weight - 0.5 * grad))


def test_lars_makes_a_step_whose_size_does_not_depend_on_the_gradients() -> None:
    sizes = []
    for scale in (1.0, 1000.0):
        parameter = nn.Parameter(torch.ones(3, 3))
        parameter.grad = scale * torch.eye(3)
        LARS([parameter], lr=1.0).step()
        sizes.append(float((parameter.data - 1).norm()))
    assert sizes[0] == pytest.approx(sizes[1]) == pytest.approx(0.001 * 3)


def test_sgd_with_momentum_is_torchs() -> None:
    first, second = model(), model()
    ours = after_steps(first, config("sgd", weight_decay=0.0, optimizer_args={"momentum": 0.9}), 3)
    reference = torch.optim.SGD(second.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        give_gradients(second, step)
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, second.parameters(), strict=True))


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest() -> None:
    method = model()
    hidden = {method["encoder"][1].weight, method["encoder"][2].weight, method["predictor"][1].weight}
    assert hidden_matrices(method) == hidden
    optimizer = build_optimizer(method, config("muon"))
    assert isinstance(optimizer, Combined)
    muon, adamw = optimizer.parts
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    assert {p for group in muon.param_groups for p in group["params"]} == hidden
    rest = {p for group in adamw.param_groups for p in group["params"]}
    assert rest == set(method.parameters()) - hidden
    alone = torch.optim.Muon([method["encoder"][1].weight], lr=0.1, weight_decay=0.04, adjust_lr_fn="match_rms_adamw")
    copied = copy.deepcopy(method)
    give_gradients(method)
    alone.step()
    expected = method["encoder"][1].weight.detach().clone()
    (ours,) = [p for p, w in zip(after_steps(copied, config("muon"), 1), method.parameters(), strict=True)
               if w is method["encoder"][1].weight]  # fmt: skip
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("recipe", ["t_jepa", "lang_jepa", "nano_jepa", "i_jepa", "lejepa", "vl_jepa"])
def test_in_every_recipe_muon_gets_blocks_and_no_embedding_or_head(recipe: str, tmp_path: Path) -> None:
    builders = {
        "t_jepa": lambda: build_tiny(tmp_path),
        "lang_jepa": lambda: build_tiny(tmp_path, recipe=lang_jepa),
        "nano_jepa": lambda: build_nano(tmp_path),
        "i_jepa": lambda: build_image("encoder.stem=linear"),
        "lejepa": lambda: build_views("encoder.stem=linear"),
        "vl_jepa": lambda: build_vl(tmp_path),
    }
    method = builders[recipe]().method
    hidden = hidden_matrices(method)
    names = {name for name, p in method.named_parameters() if p in hidden}
    blocks = {name for name, p in method.named_parameters() if ".blocks." in name and p.requires_grad and p.ndim == 2}
    assert blocks
    assert blocks <= names
    ends = (
        "token.weight",
        "position_embedding.weight",
        "position_embedding",
        "stem.weight",
        "enter.weight",
        "leave.weight",
        "mask_token",
    )
    assert not [name for name in names if name.endswith(ends) and ".blocks." not in name]
    embeddings = {p for m in method.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    assert not embeddings & hidden


@pytest.mark.parametrize("optimizer", EVERY)
def test_rates_decay_and_scales_of_parts_hold_for_every_optimizer(optimizer: str) -> None:
    method = model()
    scale_lr(method["encoder"], 0.01)
    made = build_optimizer(method, config(optimizer))
    set_rates(made, lr=0.5, weight_decay=0.3)
    groups = [group for part in getattr(made, "parts", [made]) for group in part.param_groups]
    rate = {p: group["lr"] for group in groups for p in group["params"]}
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert len(rate) == len(list(method.parameters())) == sum(len(group["params"]) for group in groups)
    assert {rate[p] for p in method["encoder"].parameters()} == {0.005}
    assert {rate[p] for p in method["predictor"].parameters()} == {0.5}
    assert all(decay[p] == (0.3 if p.ndim > 1 else 0.0) for p in method.parameters())


@pytest.mark.parametrize("optimizer", EVERY)
def test_a_restored_optimizer_goes_on_bit_for_bit(optimizer: str) -> None:
    first = model()
    made = build_optimizer(first, config(optimizer))
    give_gradients(first)
    made.step()
    second = copy.deepcopy(first)
    restored = build_optimizer(second, config(optimizer))
    restored.load_state_dict(copy.deepcopy(made.state_dict()))
    for method, opt in ((first, made), (second, restored)):
        set_rates(opt, 0.03, 0.2)
        give_gradients(method, 1)
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_state_of_another_optimizer_is_refused() -> None:
    state = build_optimizer(model(), config("adamw")).state_dict()
    with pytest.raises(ValueError, match="2 optimisers"):
        build_optimizer(model(), config("muon")).load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"optimizer": "sgd", "optimizer_args": {"momentun": 0.9}}, "sgd takes no 'momentun'; did you mean 'momentum'"),
        ({"optimizer": "lars", "optimizer_args": {"speed": 1}}, "known: momentum, trust_coefficient, eps"),
        ({"optimizer_args": {"lr": 1}}, "lr is not set here; set train.lr"),
        ({"optimizer_args": {"betas": [0.5, 0.5]}}, "betas is not set here; set train.betas"),
        ({"optimizer": "sgd", "optimizer_args": {"momentum": -1}}, "Invalid momentum value: -1"),
        ({"optimizer": "lars", "optimizer_args": {"eps": "x"}}, "train.optimizer=lars cannot be made"),
        ({"optimizer": "torch.optim:Nadam"}, "did you mean 'NAdam'"),
        ({"optimizer": "torch.optim:LBFGS", "weight_decay": 0}, "train.optimizer=torch.optim:LBFGS cannot be made"),
        ({"optimizer": "torch.optim:LBFGS"}, "has no weight decay; set train.weight_decay=0"),
        ({"optimizer": "torch:tensor"}, "torch:tensor is no torch.optim.Optimizer"),
        ({"optimizer": "nowhere:Class"}, "no module named 'nowhere'"),
    ],
)
def test_what_cannot_be_made_says_so(settings: dict, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        require_optimizer(TrainConfig(**settings))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train.optimizer=adam"], "train.optimizer: unknown optimiser; did you mean 'adamw'?; known: adamw, sgd"),
        (["optimizer=sgd", "optimizer_args.momentun=0.9"], "train.optimizer_args: sgd takes no 'momentun'"),
    ],
)
def test_the_command_line_refuses_before_it_makes_a_run(
    words: list[str], hint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "t_jepa", *TINY, *words, "--out", str(tmp_path / "run")]) == 2
    assert hint in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
