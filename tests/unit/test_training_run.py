"""A training run: what it changes around itself, and that it puts it back."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openjepa import api
from openjepa.core.json_files import read_json
from openjepa.training.run import compute_threads
from tests.tiny import IMAGE


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("wanted", "within"), [(2, 2), (0, 3), (5, 3)])
def test_threads_are_set_within_and_put_back_even_after_an_error(wanted: int, within: int) -> None:
    torch.set_num_threads(3)
    seen = []
    with contextlib.suppress(RuntimeError), compute_threads(wanted):
        seen.append(torch.get_num_threads())
        raise RuntimeError("stopped")
    assert seen == [within]
    assert torch.get_num_threads() == 3


def test_what_the_data_dropped_and_mended_is_said_at_the_start_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, images = np.random.default_rng(0), tmp_path / "images"
    images.mkdir()
    for number in range(30):
        image = Image.fromarray(pixels.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        image.convert("CMYK" if number < 2 else "RGB").save(images / f"{number}.jpg", quality=95)
    (images / "broken.jpg").write_bytes(b"no picture")
    settings = [*IMAGE, f"data.source={images}", "data.images=0", "train.steps=1", "train.batch_size=8"]
    run = api.train("i_jepa", out=tmp_path / "run", overrides=settings)
    counted = {"images": 30, "mended: CMYK": 2, "image cannot be decoded": 1}
    assert run.summary()["notes"]["data"] == counted
    assert read_json(run.path / "env.json")["notes"]["data"] == counted
    assert "data: 30 images, 2 mended: CMYK, 1 image cannot be decoded" in capsys.readouterr().err
