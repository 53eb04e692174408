"""What people give to be embedded, as a plain list: one text or many, in whatever container they have them.

Containers are read by position, never by label: rows come in the order in which they are seen. A container of another
library (a pandas Series, a polars one, an Arrow column) is known by what it can do, so that none is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.errors import UserError

SHOWN = 3  # positions that an error names
AS_LIST = ("to_pylist", "to_list", "tolist")  # Arrow columns, polars and pandas Series, NumPy arrays
IMAGE_AXES = (2, 3)  # of an array that is one image


def as_texts(inputs: Any) -> tuple[list[str], bool]:
    """The texts in their order, and whether a single one was given.

    Raises UserError naming the positions of items that are no texts (None, NaN, numbers, bytes), or a container that
    holds no column of texts.
    """
    if isinstance(inputs, str):
        return [inputs], True
    items = _listed(inputs, "texts")
    wrong = [(number, item) for number, item in enumerate(items) if not isinstance(item, str)]
    if wrong:
        named = ", ".join(f"{number} ({_named(item)})" for number, item in wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{len(wrong)} of {len(items)} inputs are no texts, at position {named}{more} (counted from 0); drop them, "
            "or give '' where there is no text"
        )
    return [str(item) for item in items], False  # numpy's own str type becomes a plain one


def as_images(inputs: Any) -> tuple[list[Any], bool]:
    """The images in their order, and whether a single one was given: a path, bytes, a Pillow image or an array."""
    if isinstance(inputs, str | bytes | Path) or hasattr(inputs, "convert"):  # a Pillow image
        return [inputs], True
    if isinstance(inputs, np.ndarray) and inputs.ndim in IMAGE_AXES and inputs.dtype != object:
        return [inputs], True
    return _listed(inputs, "images"), False


def _listed(inputs: Any, what: str) -> list[Any]:
    """The items of a container in their order."""
    if isinstance(inputs, np.ndarray) and inputs.ndim != 1 and what == "texts":
        raise UserError(f"an array of {inputs.ndim} axes is no list of texts; give one axis")
    if hasattr(inputs, "columns") and not isinstance(inputs, Sequence):
        return _only_column(inputs)
    if isinstance(inputs, Mapping):
        raise UserError(f"a mapping has no order of {what}; give a list, such as list(mapping.values())")
    if isinstance(inputs, np.ndarray) and what == "images":
        return list(inputs)
    for name in AS_LIST:
        if callable(convert := getattr(inputs, name, None)):
            return convert()
    if isinstance(inputs, Iterable):
        return list(inputs)
    raise UserError(f"{_named(inputs)} is no list of {what}; give a list")


def _only_column(frame: Any) -> list[Any]:
    """The items of a table's only column."""
    names = [str(name) for name in getattr(frame, "column_names", frame.columns)]
    if len(names) != 1:
        raise UserError(f"a table of {len(names)} columns; give one of them, such as table[{names[0]!r}]" if names else
                        "a table without columns; give a list of texts")  # fmt: skip
    return _listed(frame[frame.columns[0]], "texts")


def _named(item: Any) -> str:
    if item is None:
        return "None"
    if isinstance(item, float) and math.isnan(item):
        return "NaN"
    if isinstance(item, int | float):
        return f"the number {item}"
    return f"a {type(item).__name__}"
