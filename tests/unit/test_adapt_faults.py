"""An adaptation that fails leaves no half of a run behind, and no run that was there is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openjepa.adaptation.adapt import LATENTS, withdrawn_on_failure
from openjepa.adaptation.documents import Text
from openjepa.adaptation.latents import encoded
from openjepa.core.config import TrainConfig
from openjepa.core.errors import NonFinite, UserError, WriteError
from openjepa.core.rundir import RunDir
from openjepa.training import checkpoint
from tests.faults import contents, full_disk
from tests.unit.test_checkpoint import trained


def vectors_of(texts: list[str]) -> np.ndarray:
    return np.random.default_rng(len(texts)).normal(size=(len(texts), 64)).astype(np.float32)


TEXTS = [Text(str(n), f"one {n}. two {n}.", (f"one {n}.", f"two {n}.")) for n in range(100)]


def test_latents_are_read_back_as_they_were_encoded(tmp_path: Path) -> None:
    found = encoded(TEXTS, vectors_of, tmp_path / LATENTS, 0.2)
    assert (found.documents.shape, found.parts.shape) == ((100, 64), (200, 64))
    expected = vectors_of([""] * 300).astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(np.concatenate([found.documents, found.parts]) - expected).max() < 1e-3
    assert not list((tmp_path / LATENTS).glob("*.raw"))


def test_a_full_disk_leaves_the_latents_of_before(tmp_path: Path) -> None:
    encoded(TEXTS, vectors_of, tmp_path / LATENTS, 0.2)
    before = contents(tmp_path)
    with full_disk(20_000), pytest.raises(WriteError, match=f"cannot write {tmp_path / LATENTS}"):
        encoded(TEXTS, vectors_of, tmp_path / LATENTS, 0.2)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("begun", [False, True])
def test_a_failure_withdraws_what_it_made_and_nothing_else(begun: bool, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", "t_jepa", TrainConfig())
    if begun:
        checkpoint.save(run.checkpoints, 1, *trained(1))

    def fail() -> None:
        with withdrawn_on_failure(run.path):
            checkpoint.save(run.checkpoints, 2, *trained(1))
            raise UserError("no documents")

    with pytest.raises(UserError, match="no documents"):
        fail()
    assert run.has_begun() == begun


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    model, _ = trained(1)
    model[0].weight.data[0, 0] = float("inf")
    with pytest.raises(NonFinite, match=r"in 0\.weight first"):
        checkpoint.save_weights(tmp_path, 1, model)
    assert list(tmp_path.iterdir()) == []
