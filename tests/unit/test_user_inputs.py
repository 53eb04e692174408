"""One text or many, in any container, in the order in which they are seen; what is no text is named by position."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from openjepa.core.errors import UserError
from openjepa.encoding.inputs import as_images, as_texts

pd = pytest.importorskip("pandas")
TEXTS = ["short cat", "a longer sentence about oil", "the dog", "trains run late"]
ORDER = [2, 0, 3, 1]


def test_one_string_is_one_text() -> None:
    assert as_texts("several words") == (["several words"], True)


@pytest.mark.parametrize(
    "container",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=range(10, 14)),
        pd.DataFrame({"text": TEXTS}),
        (text for text in TEXTS),
        SimpleNamespace(to_pylist=lambda: TEXTS),  # an Arrow column
        SimpleNamespace(to_list=lambda: TEXTS),  # a polars Series
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_are_read_in_their_order(container: object) -> None:
    assert as_texts(container) == (TEXTS, False)


def test_a_series_is_read_by_position_not_by_label() -> None:
    shuffled = pd.Series(TEXTS).iloc[ORDER]
    assert as_texts(shuffled)[0] == [TEXTS[i] for i in ORDER]


@pytest.mark.parametrize(
    ("item", "name"),
    [(None, "None"), (float("nan"), "NaN"), (7, "the number 7"), (b"x", "a bytes"), (["a"], "a list")],
)
def test_what_is_no_text_is_named_by_its_position(item: object, name: str) -> None:
    with pytest.raises(UserError, match=rf"1 of 3 inputs are no texts, at position 1 \({name}\)"):
        as_texts(["a", item, "b"])
    with pytest.raises(UserError, match=rf"position 1 \({name}\)"):
        as_texts(pd.Series(["a", item, "b"], dtype=object))


def test_many_wrong_items_are_counted() -> None:
    with pytest.raises(UserError, match=r"5 of 5 inputs .* 0 \(None\), 1 \(None\), 2 \(None\) and 2 more"):
        as_texts([None] * 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), r"a table of 2 columns; give one of them, such as table\['a'\]"),
        ({"a": "b"}, "a mapping has no order"),
        (3, "the number 3 is no list of texts"),
        (None, "None is no list of texts"),
        (np.array([["a"]]), "an array of 2 axes"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(given: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_texts(given)


def test_one_image_is_one_image() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    for image in ("a.png", Image.fromarray(pixels), pixels, b"png"):
        items, is_single = as_images(image)
        assert (len(items), is_single) == (1, True)
    assert as_images(np.zeros((2, 4, 4, 3), dtype=np.uint8))[1] is False
    assert len(as_images(["a.png", "b.png"])[0]) == 2
    assert as_images(pd.Series(["b.png", "a.png"], index=[1, 0]))[0] == ["b.png", "a.png"]
