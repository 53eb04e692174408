"""Sizes that no machine has are refused before any memory is taken, and named functions are looked at before use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from openjepa.core import room
from openjepa.core.errors import ConfigError, UserError
from openjepa.core.experiment import Experiment
from openjepa.core.room import available_bytes, require_memory
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.models.room import SMALL, built
from openjepa.objectives.latent import build_objective
from openjepa.objectives.regularizers import named_regularizer
from openjepa.objectives.targets import named_target_norm
from openjepa.training.launcher import require_devices
from openjepa.training.room import require_room
from tests.tiny import build_tiny

FUNCTIONS = """
import torch
NUMBER = 3
def three(a, b, c): ...
def mean(predicted, target): return (predicted - target).abs().mean()
def rows(predicted, target): return (predicted - target).abs().mean(-1)
def number(z, draw): return 1
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "named_by_a_user.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "named_by_a_user", raising=False)
    return "named_by_a_user"


def test_memory_is_compared_with_what_there_is() -> None:
    there = available_bytes()
    assert there is None or 1e6 < there < 1e15
    require_memory(1e6, "a network", "lower it", available=2e6)
    with pytest.raises(UserError, match=r"a network needs 3\.0 GB of memory at least, and there is 2\.0 GB; lower it"):
        require_memory(3e9, "a network", "lower it", available=2e9)


def test_a_container_has_less_than_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"memory.max": "3000", "memory.current": "2500", "memory.stat": "anon 2000\nfile 400\n"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    assert available_bytes() == 900
    (tmp_path / "memory.max").write_text("max")
    assert available_bytes() != 900


@pytest.mark.parametrize("size", ["encoder.dim=100000", "encoder.max_len=1000000000", "predictor.width=1000000"])
def test_networks_that_are_too_large_are_not_made(tmp_path: Path, size: str) -> None:
    with pytest.raises(UserError, match=rf"building these networks needs [\d,.]+ GB .* lower {size}"):
        run_of(tmp_path, size)


def run_of(folder: Path, *settings: str) -> Experiment:
    from openjepa.core.describe import lower_settings
    from openjepa.core.experiment import BuildContext
    from openjepa.recipes import t_jepa

    config = t_jepa.Config.load(overrides=["tokenizer.kind=bytes", *settings])
    return built(lambda: t_jepa.build(config, BuildContext(folder)), lower_settings(config))


def test_networks_that_are_large_and_fit_are_those_of_their_seed(tmp_path: Path) -> None:
    width = 2048  # of an embedding and a block of more than SMALL bytes

    def seeded() -> Experiment:
        return build_tiny(tmp_path, f"encoder.dim={width}", "encoder.depth=1", "encoder.heads=4")

    one, other = built(seeded, "").method.state_dict(), seeded().method.state_dict()
    assert sum(tensor.nbytes for tensor in other.values()) > SMALL
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_step_that_is_too_large_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = build_tiny(tmp_path)
    require_room(experiment, torch.device("cpu"))
    monkeypatch.setattr(room, "available_bytes", lambda: 1e6)
    with pytest.raises(UserError, match=r"a step on a batch of [\d,]+ tokens \(train\.batch_size=.*there is 0\.0 GB"):
        require_room(experiment, torch.device("cpu"))


def test_a_vocabulary_that_is_too_large_is_not_trained() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size=1000000000000 needs 72,000\.0 GB"):
        train_tokenizer(TokenizerConfig(vocab_size=10**12), ["a text"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("steps=true", "train.steps: give a number"),
        ("steps=" + "9" * 30, "train.steps: give a number between"),
        ("workers=100000", "less than or equal to 256"),
    ],
)
def test_numbers_that_are_none_or_absurd_are_one_line(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _load(setting)


def _load(setting: str) -> None:
    from openjepa.recipes.t_jepa import Config

    Config.load(overrides=[setting])


def test_an_empty_section_names_a_key_of_it() -> None:
    with pytest.raises(ConfigError, match=r"train: is empty; set a key of it, such as train\.steps"):
        _load("train={}")


def test_more_processes_than_a_machine_has_are_not_started() -> None:
    with pytest.raises(UserError, match=r"train\.devices=100000: this machine has"):
        require_devices("cpu", 100_000)
    require_devices("cpu", 8)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            build_objective,
            r"objective '{}:three' takes \(a, b, c\).*wanted is f\(predicted \[M, D\], target",
        ),
        (named_regularizer, r"regularizer '{}:three' takes \(a, b, c\).*wanted is f\(z \[N, D\], draw\) -> a dict"),
        (named_target_norm, r"normalisation '{}:three' takes \(a, b, c\).*wanted is f\(latents \[\.\.\., D\], valid"),
    ],
)
def test_a_wrong_signature_is_told_with_the_one_that_is_wanted(make: object, said: str, functions: str) -> None:
    with pytest.raises(UserError, match=said.format(functions)):
        make(f"{functions}:three")  # ty: ignore[call-non-callable]


def test_a_wrong_result_is_told_with_the_one_that_is_wanted(functions: str) -> None:
    predicted, target = torch.ones(3, 2), torch.zeros(3, 2)
    assert build_objective(f"{functions}:rows")(predicted, target) == 1
    with pytest.raises(UserError, match=r"returned a Tensor of shape \[\]; wanted is .* a tensor \[M\]"):
        build_objective(f"{functions}:mean")(predicted, target)
    with pytest.raises(UserError, match=r"returned a int; wanted is .* a dict of names to tensors"):
        named_regularizer(f"{functions}:number")(predicted, 0)
    with pytest.raises(UserError, match="is no function but a int"):
        build_objective(f"{functions}:NUMBER")
