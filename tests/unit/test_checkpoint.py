"""Checkpoints: equal after a round trip, whole or absent, pruned with care, and named when damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from openjepa.core.config import TrainConfig
from openjepa.core.errors import UserError
from openjepa.core.manifest import MANIFEST
from openjepa.data.loading.loader import Bookmark
from openjepa.training import checkpoint
from openjepa.training.optim import build_optimizer, parameter_groups, set_rates


def method(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    model(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = method()
    optimizer = build_optimizer(model, TrainConfig())
    for seed in range(steps):
        step(model, optimizer, seed)
    return model, optimizer


def test_going_on_from_a_checkpoint_is_going_on(tmp_path: Path) -> None:
    """Bit for bit, so the optimiser's moments and step counts are in it, too."""
    model, optimizer = trained()
    saved = checkpoint.save(tmp_path, 3, model, optimizer)
    other = method()
    with torch.no_grad():
        other[0].weight.add_(1.0)
    other_optimizer = build_optimizer(other, TrainConfig())
    assert checkpoint.load(saved, other, other_optimizer) == 3
    for both in ((model, optimizer), (other, other_optimizer)):
        step(*both, seed=99)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_shared_weights_survive(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight

    torch.manual_seed(1)
    model, other = Tied(), Tied()
    checkpoint.load_weights(checkpoint.save(tmp_path, 1, model, build_optimizer(model, TrainConfig())), other)
    assert torch.equal(other.first.weight, model.first.weight)
    assert other.second.weight is other.first.weight


def test_a_crash_while_writing_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained()
    checkpoint.save(tmp_path, 1, model, optimizer)

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", die)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, model, optimizer)
    assert checkpoint.newest_step(tmp_path) == 1
    checkpoint.save(tmp_path, 2, model, optimizer)  # and the rest of it is in nobody's way
    assert sorted(os.listdir(tmp_path)) == ["step-000001", "step-000002"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    model, optimizer = trained()
    checkpoint.save(tmp_path, 2, model, optimizer)
    step(model, optimizer, 5)
    saved, other = checkpoint.save(tmp_path, 2, model, optimizer), method()
    checkpoint.load_weights(saved, other)
    assert torch.equal(other[0].weight, model[0].weight)


def test_the_newest_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    """Also beyond a million, where names are longer than six digits."""
    for number in (999_500, 1_000_000, 500):
        checkpoint.save(tmp_path, number, *trained(1))
    assert [path.name for path in checkpoint.finished(tmp_path)] == ["step-000500", "step-999500", "step-1000000"]
    assert checkpoint.newest_step(tmp_path) == 1_000_000
    checkpoint.prune(tmp_path, keep=1)
    assert checkpoint.newest_step(tmp_path) == 1_000_000


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    for number in range(1, 7):
        checkpoint.save(tmp_path, number, model, optimizer)
    checkpoint.mark_best(tmp_path, 2, score=0.7)
    checkpoint.prune(tmp_path, keep=2)
    assert [path.name for path in checkpoint.finished(tmp_path)] == ["step-000002", "step-000005", "step-000006"]
    assert checkpoint.best(tmp_path).name == "step-000002"
    assert checkpoint.best_score(tmp_path) == 0.7


def test_without_a_mark_the_newest_is_the_best(tmp_path: Path) -> None:
    assert checkpoint.best_score(tmp_path) == float("-inf")
    checkpoint.save(tmp_path, 4, *trained(1))
    assert checkpoint.best(tmp_path).name == "step-000004"
    checkpoint.mark_best(tmp_path, 9, score=1.0)  # its folder is gone
    assert checkpoint.best(tmp_path).name == "step-000004"


def test_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("file", [checkpoint.WEIGHTS, checkpoint.STATE])
@pytest.mark.parametrize("damage", ["cut", "gone", "garbage"])
def test_a_damaged_file_is_named(file: str, damage: str, tmp_path: Path) -> None:
    model, optimizer = trained(1)
    path = checkpoint.save(tmp_path, 1, model, optimizer) / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "cut" else b"garbage" * 50)
    with pytest.raises(UserError, match=rf"{file} cannot be loaded"):
        checkpoint.load(path.parent, model, optimizer)


def test_weights_of_another_configuration_are_refused(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, 1, *trained(1))
    with pytest.raises(UserError, match="cannot be loaded into this method"):
        checkpoint.load_weights(saved, method(width=5))


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "frozen": nn.Linear(2, 2)})
    model["frozen"].requires_grad_(False)
    decay, no_decay = parameter_groups(model)
    assert decay["params"] == [model["linear"].weight]
    assert len(no_decay["params"]) == 3
    optimizer = build_optimizer(model, TrainConfig(weight_decay=0.1))
    set_rates(optimizer, lr=0.5, weight_decay=0.3)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.5, 0.3), (0.5, 0.0)]


def test_an_empty_group_is_left_out() -> None:
    assert [group["name"] for group in parameter_groups(nn.Linear(2, 2, bias=False))] == ["decay"]


def test_a_bookmark_comes_back_equal(tmp_path: Path) -> None:
    mark = Bookmark(draw=70, epoch=1, offset=(2, 13, 120, 209))
    assert checkpoint.load_bookmark(checkpoint.save(tmp_path, 8, *trained(1), mark)) == mark
    assert checkpoint.load_bookmark(checkpoint.save(tmp_path, 9, *trained(1), Bookmark())) == Bookmark()
    assert checkpoint.load_bookmark(checkpoint.save(tmp_path, 10, *trained(1))) is None


def with_a_flipped_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("file", [checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.BOOKMARK, MANIFEST])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning_that_names_both(
    file: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (4, 8):
        checkpoint.save(tmp_path, number, *trained(1), Bookmark())
    damaged = tmp_path / "step-000008" / file
    if damage == "flipped":
        with_a_flipped_bit(damaged)
    elif damage == "cut":
        damaged.write_bytes(damaged.read_bytes()[:-3])
    else:
        damaged.unlink()
    found = checkpoint.newest_resumable(tmp_path)
    assert found == tmp_path / "step-000004"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(found) in said
    assert str(damaged.parent) in said
    assert sorted(os.listdir(tmp_path)) == ["damaged-step-000008", "step-000004"]
    checkpoint.save(tmp_path, 8, *trained(1))
    checkpoint.prune(tmp_path, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["step-000004", "step-000008"], "what is written again needs no remains"


def test_weights_alone_decide_what_is_used_and_all_files_what_is_resumed(tmp_path: Path) -> None:
    for number in (4, 8):
        checkpoint.save(tmp_path, number, *trained(1))
    assert checkpoint.newest(tmp_path).name == "step-000008"
    with_a_flipped_bit(tmp_path / "step-000008" / checkpoint.STATE)
    assert checkpoint.newest(tmp_path).name == "step-000008", "its weights are whole"
    with_a_flipped_bit(tmp_path / "step-000008" / checkpoint.WEIGHTS)
    assert checkpoint.newest(tmp_path).name == "step-000004", "also after it was found to be whole once"


def test_if_every_checkpoint_is_damaged_nothing_is_used(tmp_path: Path) -> None:
    for number in (4, 8):
        with_a_flipped_bit(checkpoint.save(tmp_path, number, *trained(1)) / checkpoint.WEIGHTS)
    for find in (checkpoint.newest, checkpoint.newest_resumable):
        with pytest.raises(UserError, match=r"step-000008/model\.safetensors is damaged.*no checkpoint before it"):
            find(tmp_path)
    assert len(checkpoint.finished(tmp_path)) == 2


def test_a_damaged_mark_of_the_best_is_none(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 4, *trained(1))
    checkpoint.mark_best(tmp_path, 4, 0.5)
    (tmp_path / checkpoint.BEST).write_text('{"step": 4, "sc')
    assert checkpoint.best_score(tmp_path) == float("-inf")
    assert checkpoint.best(tmp_path).name == "step-000004"
