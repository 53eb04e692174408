"""Latents on disk: what is read is what was computed, once; an interruption costs a chunk; a changed key all."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.data.captions import latent_cache
from openjepa.data.captions.latent_cache import CHUNK, LatentCache, weights_hash
from tests.tiny import build_vl

N, D = 3 * CHUNK + 5, 6
LENGTHS = [number % 4 for number in range(N)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENJEPA_CACHE", str(tmp_path / "cache"))


def latents(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(LENGTHS[number], D)).astype(np.float16)


class Asked(NamedTuple):
    """A cache, and which items it computed."""

    cache: LatentCache
    computed: list[int]


def made(key: str = "a", stop: int | None = None) -> Asked:
    """With `stop`, who computes is interrupted at that item."""
    computed: list[int] = []

    def compute(numbers: Sequence[int]) -> list[np.ndarray]:
        if stop is not None and stop in numbers:
            raise KeyboardInterrupt
        computed.extend(numbers)
        return [latents(number) for number in numbers]

    return Asked(LatentCache("latents", lambda: key, lambda: LENGTHS, D, compute), computed)


def test_what_is_read_is_what_was_computed_once(capfd: pytest.CaptureFixture[str]) -> None:
    cache, computed = made()
    for number in (3, 0, N - 1, 70):
        assert np.array_equal(cache[number], latents(number))
    assert computed == list(range(N))
    assert f"{N} to keep, 0.0 MB" in capfd.readouterr().err
    again, computed = made()
    assert np.array_equal(again[7], latents(7))
    assert computed == []
    assert capfd.readouterr().err == ""


def test_who_is_interrupted_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        made(stop=2 * CHUNK + 1).cache[0]
    cache, computed = made()
    assert all(np.array_equal(cache[number], latents(number)) for number in range(N))
    assert computed == list(range(2 * CHUNK, N))
    assert f"{2 * CHUNK} of them exist" in capfd.readouterr().err


def test_another_key_is_another_cache() -> None:
    made("a").cache[0]
    cache, computed = made("b")
    assert np.array_equal(cache[1], latents(1))
    assert len(computed) == N


def test_it_can_be_sent_to_a_worker_and_not_be_written() -> None:
    sent = pickle.loads(pickle.dumps(LatentCache("latents", lambda: 0, lambda: [2], 3, lambda _: [np.ones((2, 3))])))
    assert np.array_equal(sent[0], np.ones((2, 3)))
    with pytest.raises(ValueError, match="read-only"):
        sent[0][0] = 0


def test_a_full_disk_is_noticed_before_the_first_latent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_cache, "SPARE_BYTES", 2**60)
    cache, computed = made()
    with pytest.raises(UserError, match="cache=false"):
        cache[0]
    assert computed == []


def test_a_hash_of_weights_sees_every_number_and_buffer() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).bfloat16()
    before = weights_hash(network)
    assert weights_hash(network) == before
    with torch.no_grad():
        network[1].running_mean[1] += 1
    assert weights_hash(network) != before


def test_an_encoder_of_other_settings_has_other_latents(tmp_path: Path) -> None:
    """The number of heads leaves no trace in the weights."""
    weights, found = [], []
    for heads in ("1", "2"):
        overrides = ("train_vision=false", "train_text=false", f"encoder.heads={heads}", f"text_encoder.heads={heads}")
        experiment = build_vl(tmp_path / heads, *overrides)
        data: Any = experiment.train_data
        found.append((data[0].latents, np.concatenate(data[0].words)))
        weights.append(weights_hash(experiment.method))
    assert weights[0] == weights[1]
    for first, second in zip(*found, strict=True):
        assert not np.array_equal(first, second)
