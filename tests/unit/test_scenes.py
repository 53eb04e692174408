"""Laws of the scenes world: addresses, what pictures and captions say, and that the splits share no combination."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest

from openjepa.core.errors import UserError
from openjepa.data.worlds.captions import FORMS, PHRASES, plural
from openjepa.data.worlds.drawing import outlines
from openjepa.data.worlds.scenes import (
    COLOURS,
    FACTORS,
    KEY,
    NAMES,
    PIXELS,
    Scene,
    Scenes,
    Split,
    classes_for,
    factor_tasks,
    render,
)


@cache
def scenes(split: Split = "train", count: int = 400) -> list[Scene]:
    data = Scenes(split, count)
    return [data[index] for index in range(count)]


def plain(shape: str, count: str = "one", size: str = "large", **others: str) -> dict[str, int]:
    """Classes of a red group of `shape` at the top left, left of a blue square on paper, unless said otherwise."""
    names = {
        "shape": shape, "colour": "red", "texture": "plain", "count": count, "size": size, "place": "top left",
        "other_shape": "square", "other_colour": "blue", "relation": "to the left of", "background": "paper", **others,
    }  # fmt: skip
    return {name: FACTORS[name].index(names[name]) for name in NAMES}


def picture(classes: dict[str, int], pixels: int = PIXELS) -> np.ndarray:
    """[S, S, 3] float, everything that classes leave open at its middle."""
    return render(classes, lambda: 0.5, pixels, np.random.default_rng(0)).astype(float)


def redness(image: np.ndarray) -> np.ndarray:
    """[S, S] bool, where red is well above green and blue."""
    return image[..., 0] - image[..., 1:].max(-1) > 60


# --- addresses


def test_a_scene_is_a_function_of_split_seed_and_index() -> None:
    first, again = Scenes("train", 50)[7], Scenes("train", 9, seed=0)[7]
    assert np.array_equal(first.image, again.image)
    assert (first.captions, first.factors) == (again.captions, again.factors)
    assert np.array_equal(Scenes("train", 50)[-1].image, Scenes("train", 50)[49].image)
    others = (Scenes("train", 50, seed=1)[7], Scenes("test", 50)[7], Scenes("train", 50)[8])
    assert all(not np.array_equal(first.image, other.image) for other in others)


def test_parts_of_a_scene_can_be_had_apart() -> None:
    data = Scenes("test", 20)
    for index in (0, 13):
        assert np.array_equal(data.image(index), data[index].image)
        assert (data.captions(index), data.factors(index)) == (data[index].captions, data[index].factors)


def test_scenes_are_many_and_distinct() -> None:
    combinations = math.prod(len(classes) for classes in FACTORS.values()) // 2  # two relations a place
    assert combinations * 7 // 8 > 200_000
    assert len({scene.image.tobytes() for scene in scenes()}) == len(scenes())
    assert len({tuple(scene.factors.values()) for scene in scenes()}) > 0.99 * len(scenes())


def test_splits_share_no_combination_but_all_classes() -> None:
    def keys(split: Split) -> set[tuple[int, ...]]:
        return {tuple(scene.factors[name] for name in KEY) for scene in scenes(split)}

    assert not keys("train") & keys("test")
    for split in ("train", "test"):
        for name, classes in FACTORS.items():
            assert {scene.factors[name] for scene in scenes(split)} == set(range(len(classes)))


def test_factors_are_balanced_and_a_relation_fits_its_place() -> None:
    uniform = np.random.default_rng(0).random
    drawn = [classes_for(uniform, held_out=False) for _ in range(4000)]
    for name, classes in FACTORS.items():
        counts = np.array([count for _, count in sorted(Counter(c[name] for c in drawn).items())])
        assert len(counts) == len(classes)
        expected = len(drawn) / len(classes)
        assert (np.abs(counts - expected) < 5 * math.sqrt(expected)).all(), name
    for classes in drawn:
        place, relation = (FACTORS[name][classes[name]] for name in ("place", "relation"))
        sides = {"to the left of": "left", "to the right of": "right", "above": "top", "below": "bottom"}
        assert sides[relation] in place.split()


# --- pictures


def test_pictures_have_the_size_asked_for() -> None:
    assert scenes()[0].image.shape == (PIXELS, PIXELS, 3)
    assert scenes()[0].image.dtype == np.uint8
    assert Scenes("train", 5, pixels=32)[0].image.shape == (32, 32, 3)


def test_shapes_lie_where_their_classes_say() -> None:
    half = PIXELS // 2
    for place in FACTORS["place"]:
        vertical, horizontal = place.split()
        relation = "to the left of" if horizontal == "left" else "to the right of"
        red = redness(picture(plain("circle", place=place, relation=relation)))
        rows = slice(0, half) if vertical == "top" else slice(half, None)
        columns = slice(0, half) if horizontal == "left" else slice(half, None)
        assert red.any()
        assert red[rows, columns].sum() == red.sum(), place
    blue = picture(plain("circle"))[..., 2] - picture(plain("circle"))[..., 0] > 60
    assert blue[:half, half:].sum() == blue.sum() > 0  # the other shape is to the right
    below = picture(plain("circle", relation="above"))
    assert (below[half:, :half, 2] - below[half:, :half, 0] > 60).any()


def test_more_and_larger_shapes_cover_more() -> None:
    by_count = [redness(picture(plain("circle", count))).sum() for count in FACTORS["count"]]
    by_size = [redness(picture(plain("circle", size=size))).sum() for size in FACTORS["size"]]
    assert by_count == sorted(by_count)
    assert by_count[3] == pytest.approx(4 * by_count[0], rel=0.15)
    assert by_size[0] * 1.5 < by_size[1] < by_size[2] / 1.5


def test_every_shape_and_texture_looks_different() -> None:
    shown = [picture(plain(shape, texture=t)) for shape in FACTORS["shape"] for t in FACTORS["texture"]]
    gaps = [np.abs(a - b).max() for i, a in enumerate(shown) for b in shown[:i]]
    assert min(gaps) > 50  # of 255, far above the grain


def test_colours_are_those_of_the_palette() -> None:
    assert tuple(COLOURS) == FACTORS["colour"] == FACTORS["other_colour"]
    for name, rgb in COLOURS.items():
        middle = slice(round(0.27 * PIXELS) - 2, round(0.27 * PIXELS) + 2)  # of a group of one
        assert np.abs(picture(plain("square", colour=name))[middle, middle].mean((0, 1)) - rgb).max() < 12


def ground(name: str) -> np.ndarray:
    """[S / 2, S, 3] float, the lower half of a picture: no shape lies there."""
    return picture(plain("circle", background=name), 96)[60:]


def test_a_ground_is_known_by_its_pattern_and_not_by_its_colour() -> None:
    grounds = {name: ground(name) for name in FACTORS["background"]}
    for name, shown in grounds.items():
        assert np.abs(shown.mean((0, 1)) - grounds["paper"].mean((0, 1))).max() < 8, name  # of 255
        gaps = [np.abs(shown - other).mean() for key, other in grounds.items() if key != name]
        assert min(gaps) > 6, name
    plank, curtain = grounds["plank"].mean(2), grounds["curtain"].mean(2)  # [S / 2, S]
    assert plank.mean(1).std() > 4 * plank.mean(0).std()  # bands lie, folds hang
    assert curtain.mean(0).std() > 4 * curtain.mean(1).std()


def test_grounds_are_muted_and_of_many_colours() -> None:
    corners = np.array([scene.image[-3:, :].reshape(-1, 3).mean(0) for scene in scenes()])  # [N, 3]
    assert (corners.max(1) - corners.min(1) < 0.5 * corners.max(1)).mean() > 0.9
    assert (corners.std(0) > 30).all()


def test_shapes_are_of_about_equal_area() -> None:
    """So that size is a factor of its own."""
    covered = {shape: redness(picture(plain(shape), 192)).sum() for shape in FACTORS["shape"]}
    assert max(covered.values()) < 2.2 * min(covered.values()), covered
    assert all(outlines(shape) for shape in FACTORS["shape"])


# --- captions


def test_no_phrase_belongs_to_two_classes_of_a_factor() -> None:
    for name, classes in PHRASES.items():
        phrases = [phrase for options in classes for phrase in options if phrase != "-"]
        assert len(set(phrases)) == len(phrases), name
    slots = {"group", "other", "relation", "side", "place", "background"}
    assert all(part.split("}")[0] in slots for form in FORMS for part in form.split("{")[1:])


def test_captions_tell_both_colours_and_shapes_in_varied_words() -> None:
    def told(text: str, name: str, index: int) -> bool:
        words = text.replace(",", " ").replace(":", " ").replace(";", " ").split()
        phrases = PHRASES[name][index]
        return any(phrase in words or plural(phrase) in words for phrase in phrases)

    for scene in scenes():
        assert len(scene.captions) == 5
        for text in scene.captions:
            assert "{" not in text
            assert "  " not in text
            assert "-" not in text.split()
            for name in ("shape", "colour"):
                assert told(text, name, scene.factors[name]), text
                assert told(text, name, scene.factors[f"other_{name}"]), text
    forms = {text for scene in scenes() for text in scene.captions}
    assert len(forms) > 4.5 * len(scenes())  # hardly ever the same words twice


def test_articles_and_plurals() -> None:
    assert [plural(noun) for noun in ("star", "box", "cross", "lozenge")] == ["stars", "boxes", "crosses", "lozenges"]
    texts = " | ".join(text for scene in scenes() for text in scene.captions)
    assert " a amber" not in texts
    assert " an red" not in texts
    assert "two small" in texts or "two little" in texts


# --- tasks


def test_factor_tasks_are_held_out_and_share_their_images() -> None:
    tasks = factor_tasks(train=60, test=30)
    assert [task.name for task in tasks] == list(NAMES)
    test = Scenes("test", 90)
    for task in tasks:
        assert task.train is tasks[0].train
        assert task.test is tasks[0].test
        assert (len(task.train), len(task.train_labels), len(task.test), len(task.test_labels)) == (60, 60, 30, 30)
        assert task.test_labels[0] == test[60].factors[task.name]
    assert np.array_equal(tasks[0].test[0], test[60].image)


@pytest.mark.parametrize("bad", [{"split": "valid"}, {"size": 0}, {"pixels": 8}])
def test_bad_arguments_are_named(bad: dict) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        Scenes(**bad)


def test_index_out_of_range() -> None:
    with pytest.raises(IndexError):
        Scenes("train", 5)[5]
