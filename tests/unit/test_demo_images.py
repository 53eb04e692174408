"""What the demo shows of images: the collator's masks, the method's cosines, right and wrong captions, neighbours."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import openjepa
from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.core.experiment import Sample
from openjepa.core.seeding import generator_for
from openjepa.data.images.batches import Images
from openjepa.data.images.decode import FORMATS, MOST_PIXELS
from openjepa.demo import render_images, uploads
from openjepa.demo.drawing import colour, share_of
from openjepa.demo.held_out_images import HeldOutImages
from openjepa.demo.hidden_patches import NONE, OTHER, OTHER_CAPTIONS, OWN, YOURS, HiddenPatches
from openjepa.demo.panels import panels_of
from openjepa.demo.similar_images import SimilarImages
from openjepa.demo.uploads import MOST_MB, read_upload
from openjepa.demo.views import SeveralViews
from tests.every import FORMS
from tests.tiny import EVERY_RECIPE, IMAGE, VIEWS, VL

STEPS = ("train.steps=6", "train.warmup_steps=1", "train.health_every=6", "train.checkpoint_every=6")
PIXELS = 24


@dataclass
class Runs:
    """A run of each kind of image recipe, a few steps long. That of patches mirrors every image in training."""

    patches: Run
    views: Run
    captions: Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(folder / "cache"))
        settings = {"i_jepa": (*IMAGE, "augment.flip=1"), "lejepa": VIEWS, "vl_jepa": VL}
        yield Runs(*(
            openjepa.train(recipe, out=folder / recipe, overrides=[*sizes, *STEPS], progress=False)
            for recipe, sizes in settings.items()
        ))  # fmt: skip


@pytest.fixture(scope="module")
def patches(runs: Runs) -> HiddenPatches:
    (panel,) = panels_of(runs.patches)
    assert isinstance(panel, HiddenPatches)
    return panel


@pytest.fixture(scope="module")
def views(runs: Runs) -> SeveralViews:
    (panel,) = panels_of(runs.views)
    assert isinstance(panel, SeveralViews)
    return panel


@pytest.fixture(scope="module")
def captioned(runs: Runs) -> HiddenPatches:
    (panel,) = panels_of(runs.captions)
    assert isinstance(panel, HiddenPatches)
    return panel


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("mask", [0, 1])
def test_what_is_hidden_is_what_the_collator_hides_on_the_image_as_it_is(
    runs: Runs, patches: HiddenPatches, mask: int
) -> None:
    image = patches.held_out.example(2)
    answer = patches.ask(image, mask)
    batch = runs.patches.experiment.collate([Sample(image.pixels, generator_for(0, "demo", "mask", mask), 0)])
    np.testing.assert_array_equal(answer.hidden, batch.hidden[0])
    np.testing.assert_array_equal(answer.shown, batch.shown[0])
    np.testing.assert_array_equal(answer.picture.pixels, image.pixels)
    assert np.array_equal(np.isnan(answer.prediction.cosine), ~answer.hidden)
    assert f"visible: {int(batch.shown.sum())} of 36 patches" in render_images.hidden_patches(answer)


def test_another_mask_number_hides_other_patches(patches: HiddenPatches) -> None:
    image = patches.held_out.example(0)
    assert not np.array_equal(patches.ask(image, 0).hidden, patches.ask(image, 1).hidden)


def test_cosines_and_skill_are_those_of_the_method(runs: Runs, patches: HiddenPatches) -> None:
    image = patches.held_out.example(1)
    prediction = patches.ask(image, 0).prediction
    batch = patches.batch(image.pixels, 0, "", patches.held_out.others(image.pixels))
    method = runs.patches.experiment.method.eval()
    with torch.no_grad():
        predicted = method.predict_from_context(batch).numpy()  # [M, D]
        target = method.targets_at(batch, method.target_states(batch), batch.hidden_at).numpy()
    own = np.flatnonzero(batch.hidden[0])  # row 0 comes first, in raster order
    count = len(own)
    expected = (unit(predicted[:count]) * unit(target[:count])).sum(1)
    np.testing.assert_allclose(prediction.cosine[own], expected, atol=1e-5)
    assert prediction.mean == pytest.approx(expected.mean(), abs=1e-5)
    unrelated = unit(predicted[:count]) @ unit(target[count:]).T
    assert prediction.chance.mean == pytest.approx(unrelated.mean(), abs=1e-5)
    assert prediction.chance.std == pytest.approx(unrelated.std(), abs=1e-5)
    error = np.square(predicted[:count] - target[:count]).sum()
    constant = np.square(target - target.mean(0)).sum() / batch.size
    assert prediction.skill == pytest.approx(1 - error / constant, abs=1e-4)


def test_the_map_has_a_cell_with_its_cosine_for_each_hidden_patch(patches: HiddenPatches) -> None:
    answer = patches.ask(patches.held_out.example(1), 0)
    html = render_images.hidden_patches(answer)
    cells = re.findall(r'<rect class="cell" x="(\d+)" y="(\d+)"[^>]*fill="(#\w+)"><title>[^<]*cosine (-?[\d.]+)<', html)
    assert [int(y) // 20 * 6 + int(x) // 20 for x, y, *_ in cells] == np.flatnonzero(answer.hidden).tolist()
    found = answer.prediction.cosine[answer.hidden]
    np.testing.assert_allclose([float(value) for *_, value in cells], found, atol=5e-4)
    low = answer.prediction.chance.mean
    assert [fill for *_, fill, _ in cells] == [colour(share_of(float(value), low)) for value in found]
    assert f"<b>dark</b>: {round(low, 2) + 0:.2f}, the mean of random pairs, or below" in html
    assert f"mean cosine {answer.prediction.mean:.3f}, random pairs {low:.3f}" in html


def test_dark_is_random_and_bright_is_the_target() -> None:
    assert (share_of(0.4, 0.4), share_of(1.0, 0.4), share_of(-0.9, 0.4)) == (0.0, 1.0, 0.0)
    assert share_of(0.7, 0.4) == pytest.approx(0.5)
    assert share_of(1.0, 1.0) == 0.0, "a collapsed run, whose random pairs have a cosine of 1, has a dark map"
    dark, bright = (sum(bytes.fromhex(colour(share)[1:])) for share in (0.0, 1.0))
    assert dark < bright


def test_neighbours_are_the_nearest_others_beside_random_pairs(runs: Runs, patches: HiddenPatches) -> None:
    held_out = patches.held_out
    image = held_out.example(3)
    found = held_out.nearest(image.pixels)
    vectors = unit(runs.patches.encode(list(held_out.pixels)))
    cosine = vectors @ vectors[3]
    order = [i for i in np.argsort(-cosine, kind="stable") if i != 3][: len(found)]
    np.testing.assert_allclose([match.cosine for match in found], cosine[order], atol=1e-5)
    assert all(np.array_equal(match.pixels, held_out.pixels[i]) for match, i in zip(found, order, strict=True))
    pairs = vectors @ vectors.T
    off = pairs[~np.eye(len(pairs), dtype=bool)]
    assert held_out.chance.mean == pytest.approx(off.mean(), abs=0.02), "10,000 random pairs"
    assert found[0].z == pytest.approx((found[0].cosine - held_out.chance.mean) / held_out.chance.std)


def test_a_caption_is_compared_with_others_over_the_same_hidden_patches(captioned: HiddenPatches) -> None:
    image = captioned.held_out.example(1)
    right, *_ = captioned.held_out.captions[1]
    answer = captioned.ask(image, 0, f"  {right}\n")
    kinds = [one.kind for one in answer.tried]
    assert (kinds.count(YOURS), kinds.count(NONE), kinds.count(OTHER), kinds.count(OWN)) == (1, 1, OTHER_CAPTIONS, 0)
    assert [one.caption for one in answer.tried if one.is_right] == [right]
    assert all(np.array_equal(np.isnan(one.prediction.cosine), ~answer.hidden) for one in answer.tried)
    skills = [one.prediction.skill for one in answer.tried]
    assert skills == sorted(skills, reverse=True)
    given = next(one.prediction.skill for one in answer.tried if one.kind == YOURS)
    others = [one.prediction.skill for one in answer.tried if one.kind == OTHER]
    assert answer.rank == 1 + sum(skill > given for skill in others)
    assert len(set(skills)) > 1, "a run that reads captions predicts something else with each"


def test_a_wrong_caption_has_the_figures_that_it_had_as_another_images(captioned: HiddenPatches) -> None:
    image = captioned.held_out.example(1)
    before = captioned.ask(image, 0, captioned.held_out.captions[1][0])
    assert before.other is not None
    wrong = captioned.ask(image, 0, before.other.caption)
    np.testing.assert_allclose(wrong.prediction.cosine, before.other.prediction.cosine, atol=1e-6)
    marked = {one.kind: one for one in wrong.tried if one.kind in (YOURS, OWN)}
    assert not marked[YOURS].is_right
    assert marked[OWN].is_right
    assert marked[OWN].prediction.skill == pytest.approx(before.prediction.skill, abs=1e-6)


def test_a_rank_is_among_the_captions_of_other_images_only(captioned: HiddenPatches) -> None:
    """Neither the image's own caption nor the prediction without one counts, though they may be better."""
    better = 0
    for number in range(4):
        answer = captioned.ask(captioned.held_out.example(number), 0, "a hazy red square below a moon")
        skills = {kind: [one.prediction.skill for one in answer.tried if one.kind == kind] for kind in (YOURS, OTHER)}
        above = sum(skill > skills[YOURS][0] for skill in skills[OTHER])
        assert answer.rank == 1 + above
        better += sum(one.prediction.skill > skills[YOURS][0] for one in answer.tried) > above
    assert better, "one of these images tells the two apart"


def test_without_a_caption_nothing_is_ranked(captioned: HiddenPatches) -> None:
    answer = captioned.ask(captioned.held_out.example(0), 0, " ")
    assert answer.rank is None
    assert [one.kind for one in answer.tried if one.prediction is answer.prediction] == [NONE]
    assert "You gave no caption." in render_images.hidden_patches(answer)


def test_what_of_a_caption_is_not_read_is_said(captioned: HiddenPatches) -> None:
    image = captioned.held_out.example(0)
    assert captioned.ask(image, 0, captioned.held_out.captions[0][0]).note == ""
    assert "this run knows only the words of its synthetic world" in captioned.ask(image, 0, "日本語").note.lower()
    note = captioned.ask(image, 0, "a red square " * 30).note
    assert f"the run reads the first {captioned.max_len}" in note
    with pytest.raises(UserError, match="characters"):
        captioned.ask(image, 0, "x" * 5000)


def test_captions_are_escaped(captioned: HiddenPatches) -> None:
    html = render_images.hidden_patches(captioned.ask(captioned.held_out.example(0), 0, "<script>alert(1)</script>"))
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_a_run_without_captions_reads_none(patches: HiddenPatches, captioned: HiddenPatches) -> None:
    assert captioned.reads_captions
    assert not patches.reads_captions
    answer = patches.ask(patches.held_out.example(0), 0, "a caption")
    assert answer.tried == []
    assert "your caption" not in (shown := render_images.hidden_patches(answer))
    assert "other captions" not in shown


def test_views_agree_as_their_embeddings_do(runs: Runs, views: SeveralViews) -> None:
    image = views.held_out.example(2)
    answer = views.ask(image, 0)
    batch = views.collate([Sample(image.pixels, generator_for(0, "demo", "views", 0), 0)])
    vectors = []
    for drawn in (batch.global_views[0], batch.local_views[0]):
        with torch.no_grad():
            whole = Images(keys=torch.arange(len(drawn)), images=drawn, grid=batch.grid)
            vectors.append(runs.views.experiment.method.eval().embed(whole).numpy())
    units = unit(np.concatenate(vectors))  # [4, D]
    pairs = units @ units.T
    assert [view.kind for view in answer.views] == ["global", "global", "local", "local"]
    assert [view.pixels.shape[0] for view in answer.views] == [24, 24, 12, 12]
    assert answer.agreement == pytest.approx(pairs[~np.eye(4, dtype=bool)].mean(), abs=1e-5)
    np.testing.assert_allclose([view.cosine for view in answer.views], (pairs.sum(1) - 1) / 3, atol=1e-5)
    html = render_images.views(answer)
    assert f"mean cosine of two views {answer.agreement:.3f}, random pairs {answer.chance.mean:.3f}" in html


def test_a_view_predicts_its_own_image_among_those_of_the_batch(views: SeveralViews) -> None:
    image = views.held_out.example(2)
    answer = views.ask(image, 0)
    batch = views.batch(image.pixels, 0, views.held_out.others(image.pixels)[: views.at_once - 1])
    predicted, target = views.predict(batch)
    cosine = unit(target) @ unit(predicted[0])
    assert answer.predicted == pytest.approx(cosine[0], abs=1e-5)
    assert answer.predicted_chance.mean == pytest.approx(cosine[1:].mean(), abs=1e-5)
    assert answer.rank == 1 + (cosine > cosine[0]).sum()
    assert answer.candidates == len(target)
    assert views.ask(image, 1).agreement != answer.agreement, "other draws give other views"


def test_images_of_a_run_with_batches_of_its_own_are_compared_all_the_same(runs: Runs) -> None:
    """A recipe of a user may hide and draw what no panel knows; the panel goes by its rows then."""
    run = runs.views
    own = SimpleNamespace(
        experiment=replace(run.experiment, collate=lambda rows: rows), encode=run.encode, path=run.path
    )
    (panel,) = panels_of(own)  # ty: ignore[invalid-argument-type]
    assert isinstance(panel, SimilarImages)
    answer = panel.ask(panel.held_out.example(0))
    units = unit(run.encode(list(panel.held_out.pixels)))
    assert answer.nearest[0].cosine == pytest.approx((units[1:] @ units[0]).max(), abs=1e-5)
    assert f"cosine {answer.nearest[0].cosine:.3f}" in render_images.similar_images(answer)


@pytest.mark.parametrize("form", [name for name in FORMS if name not in EVERY_RECIPE])
def test_other_forms_of_a_recipe_have_answers(form: str, runs: Runs, tmp_path: Path) -> None:
    """One kind of views, captions in both directions, a frozen encoder whose predictor makes the embedding."""
    recipe, settings = FORMS[form]
    _, sizes = EVERY_RECIPE[recipe]
    run = openjepa.train(recipe, out=tmp_path / "run", overrides=[*sizes, *settings, *STEPS], progress=False)
    (panel,) = panels_of(run)
    assert isinstance(panel, HiddenPatches | SeveralViews)
    answer = panel.ask(panel.held_out.example(0), 0)
    assert len(answer.nearest) == 6


def test_an_image_has_to_be_chosen(patches: HiddenPatches, views: SeveralViews) -> None:
    with pytest.raises(UserError, match="upload one, or click an example"):
        patches.ask(None, 0)
    with pytest.raises(UserError, match="upload one, or click an example"):
        views.ask(None, 0)
    with pytest.raises(UserError, match="no held-out image 9999"):
        patches.held_out.example(9999)


def test_two_held_out_images_are_too_few(runs: Runs) -> None:
    few = SimpleNamespace(captions=[[], []], pixels=np.zeros((2, 24, 24, 3), np.uint8))
    with pytest.raises(UserError, match="2 held-out images"):
        HeldOutImages(runs.patches, few)  # ty: ignore[invalid-argument-type]


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_image_that_the_reader_reads_can_be_uploaded(kind: str, patches: HiddenPatches) -> None:
    red = Image.new("RGB", (40, 30), (200, 30, 30))
    chosen = patches.held_out.upload(encoded(red, kind))
    assert chosen.pixels.shape == (PIXELS, PIXELS, 3)
    np.testing.assert_allclose(chosen.pixels.mean((0, 1)), (200, 30, 30), atol=6)
    assert chosen.number is None
    assert patches.ask(chosen, 0).hidden.any()


def test_an_uploaded_copy_of_a_held_out_image_is_read_as_it(patches: HiddenPatches) -> None:
    pixels = patches.held_out.pixels[1]
    chosen = patches.held_out.upload(encoded(Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(chosen.pixels, pixels)
    assert 1 not in patches.held_out.others(chosen.pixels)


@pytest.mark.parametrize("data", [b"", b"a text", b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match="no image that can be read; give JPEG, PNG"):
        read_upload(data, PIXELS)


def test_a_file_that_is_too_large_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_size", lambda data: pytest.fail("it was opened"))
    with pytest.raises(UserError, match=rf"the file has 1\d\.\d MB; this page takes at most {MOST_MB} MB"):
        read_upload(bytes(MOST_MB * 10**6 + 100_000), PIXELS)


@pytest.mark.parametrize("side", [9_000, 300_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """9,000 x 9,000 pixels are more than the reader takes, and fewer than those at which Pillow itself refuses."""
    assert side**2 > MOST_PIXELS
    monkeypatch.setattr(uploads, "decode", lambda *_: pytest.fail("it was decoded"))
    small = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
    small[16:24] = side.to_bytes(4, "big") * 2  # width and height of the header
    small[29:33] = _crc(bytes(small[12:29]))
    with pytest.raises(UserError, match=r"at most 64 million pixels.*decompression bomb") as error:
        read_upload(bytes(small), PIXELS)
    assert "\n" not in str(error.value)


def _crc(chunk: bytes) -> bytes:
    return zlib.crc32(chunk).to_bytes(4, "big")


def test_a_damaged_image_is_refused_and_a_mended_one_says_so(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="the image cannot be used: image cannot be decoded"):
        read_upload(encoded(noise, "PNG")[:4000], PIXELS)
    with pytest.raises(UserError, match="below 4 pixels"):
        read_upload(encoded(Image.new("RGB", (2, 2)), "PNG"), PIXELS)
    _, note = read_upload(encoded(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "PNG"), PIXELS)
    assert note == "The image was mended: transparent, laid on white."
