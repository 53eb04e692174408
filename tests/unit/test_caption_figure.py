"""The picture of captions: cosines of the hidden patches alone, the same patches with either caption, and a file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from openjepa import api
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.data.captions.batches import CaptionedBatch
from openjepa.data.loading.loader import eval_batches
from openjepa.tasks.caption_figure import CaptionFigure, patch_cosines
from tests.tiny import build_image, build_vl


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return build_vl(tmp_path_factory.mktemp("assets"))


def test_hidden_patches_have_a_cosine_and_no_others(experiment: Experiment) -> None:
    batch = next(eval_batches(experiment))
    assert isinstance(batch, CaptionedBatch)
    cosines = patch_cosines(experiment.method, batch)
    assert np.array_equal(~np.isnan(cosines), batch.hidden.numpy())
    assert -1 <= np.nanmin(cosines) < np.nanmax(cosines) <= 1


def test_only_the_caption_differs(experiment: Experiment) -> None:
    figure = experiment.figures["captions"]
    assert isinstance(figure, CaptionFigure)
    right, wrong = (figure.cosines(experiment.method, text, (0, 3)) for text in ("caption", "shuffled"))
    assert all(map(np.array_equal, right.pixels, wrong.pixels))
    assert right.captions != wrong.captions
    assert right.cosines.shape == wrong.cosines.shape == (2, 6, 6)
    assert np.array_equal(np.isnan(right.cosines), np.isnan(wrong.cosines))
    assert not np.array_equal(right.cosines[~np.isnan(right.cosines)], wrong.cosines[~np.isnan(wrong.cosines)])


def test_it_is_drawn(experiment: Experiment, tmp_path: Path) -> None:
    experiment.figures["captions"](experiment.method, tmp_path / "captions.png")
    with Image.open(tmp_path / "captions.png") as image:
        assert min(image.size) > 300


def test_a_recipe_without_figures_says_so() -> None:
    run: Any = SimpleNamespace(experiment=build_image(), recipe="i_jepa")
    with pytest.raises(UserError, match="i_jepa has no figures"):
        api.Run.draw(run)
