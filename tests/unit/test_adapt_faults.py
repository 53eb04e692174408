"""An adaptation that fails leaves no half of a run behind, and no run that was there is touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from openjepa.adaptation.adapt import LATENTS, withdrawn_on_failure
from openjepa.adaptation.documents import Text
from openjepa.adaptation.latents import NAMES, DocumentLatents, Encoding, encoded
from openjepa.core.config import TrainConfig
from openjepa.core.errors import NonFinite, UserError, WriteError
from openjepa.core.rundir import RunDir
from openjepa.encoding.workers import Encoded, one_process
from openjepa.evals.features import unit_rows
from openjepa.training import checkpoint
from tests.faults import contents, full_disk
from tests.unit.test_checkpoint import trained


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    rows = [np.random.default_rng(list(text.encode())).normal(size=64) for text in texts]
    return np.stack(rows).astype(np.float32)


def written(texts: list[Text], folder: Path, before: Path | None = None) -> Encoding:
    encoding = one_process(lambda given: Encoded(vectors_of(given), {}))
    return encoded(texts, encoding, folder, 0.2, before)


TEXTS = [Text(str(n), f"one {n}. two {n}.", (f"one {n}.", f"two {n}.")) for n in range(100)]


def test_latents_are_read_back_as_they_were_encoded(tmp_path: Path) -> None:
    found = written(TEXTS, tmp_path / LATENTS).latents
    assert (found.documents.shape, found.parts.shape) == ((100, 64), (200, 64))
    expected = unit_rows(
        vectors_of([*(text.whole for text in TEXTS), *(part for text in TEXTS for part in text.parts)])
    )
    assert np.abs(np.concatenate([found.documents, found.parts]) - expected).max() < 1e-3


def test_latents_of_before_and_new_ones_are_those_of_all(tmp_path: Path) -> None:
    every = written(TEXTS, tmp_path / "every").latents
    written(TEXTS[:60], tmp_path / "before")
    found = written(TEXTS[30:], tmp_path / "after", tmp_path / "before")
    assert (found.before, found.left_out) == (60, 30)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(found.latents, name), getattr(every, name))
    assert len(DocumentLatents.open(tmp_path / "before").documents) == 60  # as it was


def test_a_full_disk_leaves_the_latents_of_before(tmp_path: Path) -> None:
    written(TEXTS, tmp_path / LATENTS)
    before = contents(tmp_path)
    with full_disk(20_000), pytest.raises(WriteError, match=f"cannot write {tmp_path / LATENTS}"):
        written(TEXTS, tmp_path / LATENTS)
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
