"""The page of masks: figures in closed form, drawings that say what is hidden, and any recipe's batches."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from openjepa.cli import main
from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.core.picture import Patches, Pieces
from openjepa.data.loading.loader import train_batches
from openjepa.pages.masks import draw
from openjepa.pages.masks.figures import coverage, epoch_overlap, figures, region_counts, to_json
from openjepa.pages.masks.html import page
from openjepa.pages.masks.sampling import Masks, Sampled, masks_of, sample
from openjepa.recipes import i_jepa, lang_jepa
from tests.tiny import IMAGE, build_image, build_nano, build_tiny


def row(text: str) -> np.ndarray:
    return np.array([[letter == "x" for letter in text]])


def masks(hidden: str, times: list[int] | None = None, padding: int = 0) -> Masks:
    hides = row(hidden)
    valid = np.ones_like(hides)
    valid[:, valid.shape[1] - padding :] = False
    return Masks(valid, hides, valid & ~hides, None if times is None else np.array([times]))


def test_figures_of_a_known_mask() -> None:
    first = masks("..xx.x....", [0, 0, 2, 1, 0, 1, 0, 0, 0, 0], padding=2)
    second = masks(".xx.......", padding=2)
    found = figures(Sampled((first, second), ([], [])))
    expected = {
        "positions": 8, "hidden_share": 3 / 8, "shown_share": 5 / 8, "unused_share": 0, "hidden_positions": 3,
        "shown_positions": 5, "hidden_regions": 2, "region_positions": 1.5, "block_overlap": 1 / 4,
        "epoch_overlap": 1 / 4,
    }  # fmt: skip
    assert {name: found[name].mean for name in expected} == pytest.approx(expected)
    covered = coverage(first)
    assert covered["hidden"].tolist() == [0, 0, 1, 1, 0, 1, 0, 0, 0, 0]
    assert covered["rows"].tolist() == [1] * 8 + [0] * 2
    assert to_json(found, Sampled((first, second), ([], [])))["figures"]["positions"]["most"] == 8


def test_regions_of_a_grid_touch_by_sides_only() -> None:
    hidden = row("xx..x" ".x..." "..x.x" "....x")  # fmt: skip
    assert region_counts(hidden, (4, 5)).tolist() == [4]
    assert region_counts(hidden, None).tolist() == [6]


def test_independent_epochs_overlap_as_chance_says_and_equal_ones_fully() -> None:
    draws = torch.rand(2, 400, 300, generator=torch.Generator().manual_seed(0)).numpy() < 0.3
    valid = np.ones_like(draws[0])
    first, second = (Masks(valid, hidden, valid & ~hidden, None) for hidden in draws)
    found = epoch_overlap(first, second)
    assert found["epoch_overlap"].mean == pytest.approx(found["epoch_overlap_by_chance"].mean, abs=0.005)
    assert found["epoch_overlap_by_chance"].mean == pytest.approx(0.3 / 1.7, abs=0.005)
    assert epoch_overlap(first, first)["epoch_overlap"].least == 1
    shorter = replace(second, valid=valid & (np.arange(300) < 200))
    assert epoch_overlap(first, shorter) == {}


def test_a_text_shows_each_stretch_once_and_escapes_what_people_wrote() -> None:
    picture = Pieces([" <b>", " two", "##", " pad"])
    found = draw.text_sample(picture, *(row(text)[0] for text in ("xxx.", ".xx.", "x...")))
    assert found == (
        '<p class="text"><span class="shown">&lt;b&gt;</span> <span class="hidden">two##</span></p>'
    )  # fmt: skip


def test_an_image_keeps_the_pixels_of_its_patches_alone() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    html = draw.image_panel(Patches(pixels, (2, 3)), row("x....x")[0], "kept")
    (encoded,) = re.findall(r"base64,([^\"]+)", html)
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(encoded))))
    alpha = np.kron(np.array([[255, 0, 0], [0, 0, 255]]), np.ones((2, 2)))
    assert np.array_equal(shown[..., 3], alpha)
    assert np.array_equal(shown[..., :3][alpha > 0], pixels[alpha > 0])


def test_a_large_image_is_made_smaller() -> None:
    html = draw.image_panel(Patches(np.zeros((500, 500, 3), np.uint8), (5, 5)), None, "")
    (encoded,) = re.findall(r"base64,([^\"]+)", html)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (125, 125)


def test_bars_stand_for_their_positions() -> None:
    hidden, rows = np.array([0.0, 0.5, 1.0, 0.25]), np.array([4, 4, 4, 2])
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"><title>', draw.position_chart(hidden, rows, "t"))]
    assert heights == pytest.approx(draw.HEIGHT * hidden)
    many = draw.position_chart(np.full(1000, 0.5), np.full(1000, 3), "t")
    assert 100 < many.count("hidden-bar") <= draw.BARS


RECIPES = {
    "t_jepa": lambda assets: build_tiny(assets),
    "lang_jepa": lambda assets: build_tiny(assets, recipe=lang_jepa),
    "nano_jepa": build_nano,
    "i_jepa": lambda assets: build_image("augment.area=[0.4,1]"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_shows_what_its_batches_hide(name: str, tmp_path: Path) -> None:
    experiment: Experiment = RECIPES[name](tmp_path)
    sampled = sample(experiment, pictured=3, rows=20)
    first, second = sampled.epochs
    assert len(first.valid) == 20
    assert (first.hidden.any(1) & first.shown.any(1)).all()
    assert not (first.hidden & first.shown).any()
    assert not ((first.hidden | first.shown) & ~first.valid).any()
    assert [len(pictures) for pictures in sampled.pictures] == [3, 3]
    assert (sampled.grid == (6, 6)) is (name == "i_jepa")
    if name == "nano_jepa":  # the answer, always
        assert np.array_equal(first.hidden, second.hidden)
    else:
        assert not np.array_equal(first.hidden, second.hidden)
    html = page(name, i_jepa.Config(), sampled, figures(sampled), "openjepa masks")
    assert html.count('class="text"') + html.count("<img ") == (15 if name == "i_jepa" else 6)


def test_masks_are_those_that_training_draws() -> None:
    experiment = build_image("train.steps=20")
    sampled = sample(experiment, pictured=1, rows=10**6)
    size = len(experiment.train_data)
    order = list(dict.fromkeys([*range(0, size, size), *range(size)]))
    for batch in train_batches(experiment, 0):
        epoch = 0 if batch.draw < size // 15 else None
        if epoch is None:
            break
        for key, hidden, shown in zip(batch.keys.tolist(), batch.hidden, batch.shown, strict=True):
            assert np.array_equal(sampled.epochs[0].hidden[order.index(key)], hidden.numpy())
            assert np.array_equal(sampled.epochs[0].shown[order.index(key)], shown.numpy())


@dataclass(kw_only=True)
class Own(Batch):
    """What a recipe of somebody else may have."""

    valid: Tensor
    hidden: Tensor


def test_a_recipe_needs_valid_and_hidden_and_nothing_else() -> None:
    valid, hidden = torch.tensor([[True, True, False]]), torch.tensor([[False, True, False]])
    found = masks_of(Own(keys=torch.zeros(1), valid=valid, hidden=hidden))
    assert found.shown.tolist() == [[True, False, False]]
    html = page("mine", i_jepa.Config(), Sampled((found, found), ([], [])), {}, "openjepa masks mine.py")
    assert html.count('class="hidden" x=') == 1
    with pytest.raises(UserError, match="no masks"):
        masks_of(Batch(keys=torch.zeros(1)))


def test_the_verb_shows_used_settings_and_says_what_cannot_be_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coarse = [setting for setting in IMAGE if not setting.startswith(("data.size", "encoder.patch"))]
    words = [*coarse, "data.size=32", "encoder.patch=16", "mask.target_area=[0.9,1.0]"]
    page = tmp_path / "masks.html"
    assert main(["masks", "i_jepa", *words, "--out", str(page)]) == 0
    printed = capsys.readouterr()
    assert "openjepa: mask.target_area=0.9 to 1 is not followed" in printed.err
    assert "mask: strategy=multiblock, targets=4, target_area=[0.9, 1.0]" in printed.out
    assert "hidden 25.0%" in printed.out
    html = page.read_text()
    assert "mask.target_area=0.9 to 1 is not followed" in html
    assert "ratio: 0.6" not in html
    assert main(["masks", "i_jepa", *IMAGE, "mask.strategy=random", "--out", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["settings"], found["remarks"]) == ({"strategy": "random", "ratio": 0.6}, [])


def test_check_and_training_say_what_masks_cannot_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coarse = [setting for setting in IMAGE if not setting.startswith(("data.size", "encoder.patch"))]
    words = [*coarse, "data.size=32", "encoder.patch=16", "mask.target_area=[0.9,1.0]", "train.steps=1"]
    main(["check", "i_jepa", *words, "--json"])
    checks = {row["name"]: row["detail"] for row in json.loads(capsys.readouterr().out)["checks"]}
    assert "25.0% of 60 real positions hidden" in checks["masks"]
    assert "target_area=0.9 to 1 is not followed" in checks["masks"]
    assert main(["train", "i_jepa", *words, "--no-eval", "--out", str(tmp_path / "run")]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "is not followed" in line]
    assert len(said) == 1
