"""Texts given as Python objects: written once into the cache, in a file named by its content, and read like any other.

So a resumed run, an evaluation and the held-out split work from the file, and equal objects share it and its tokens.
The types of pandas, polars, datasets and pyarrow are recognised without importing these libraries.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.files.records import MISSING, NoColumnError, column_names, dotted, pick
from openjepa.data.loading.cache import cache_dir

ACCEPTED = (
    "a path or a pattern, a list of texts or of dicts, a DataFrame or Series (pandas, polars), a datasets.Dataset, a "
    "pyarrow.Table, or a function that returns an iterator of texts or dicts"
)
BATCH = 1000  # rows of a table that are Python objects at once


class Wanted(NamedTuple):
    """A column that is read, and the setting that names it."""

    column: str
    setting: str
    is_text: bool = True


def is_path_or_section(value: Any) -> bool:
    """Whether `data=` was given as on the command line, or as a section of settings."""
    is_section = isinstance(value, Mapping) and not _is_a(value, "datasets", "DatasetDict", "IterableDatasetDict")
    return isinstance(value, str | os.PathLike) or is_section


def write_objects(objects: Any, wanted: Sequence[Wanted], split: str = "train") -> Path:
    """The JSON lines file of the wanted columns of `objects`, written if the cache lacks it.

    `split` names the part of a datasets.DatasetDict. None and NaN become null, which readers count as empty.
    Raises UserError for objects of another type, without a wanted column, or with a value that is no text.
    """
    folder = cache_dir() / "data"
    tmp = folder / f".{os.getpid()}.tmp"
    digest = hashlib.blake2b(digest_size=8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tmp.open("wb") as file:
            for row in _written(_rows_of(objects, wanted, split), wanted):
                line = json.dumps(row).encode() + b"\n"
                digest.update(line)
                file.write(line)
        final = folder / f"python-{digest.hexdigest()}.jsonl"
        if not final.exists():  # an older one keeps its date, and with it the tokens that were made of it
            os.replace(tmp, final)
        return final
    except OSError as error:
        raise UserError(f"the data cache {folder}: {error}; set OPENJEPA_CACHE to a folder with room") from error
    finally:
        tmp.unlink(missing_ok=True)


def _written(rows: Iterable[Any], wanted: Sequence[Wanted]) -> Iterator[str | dict[str, Any]]:
    """Rows as they are written: a text, or a dict of what is wanted. Raises NoColumnError if no dict has a column."""
    text = wanted[0].column
    first: Mapping[str, Any] = {}
    missing = list(wanted)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            plain = _plain(row, number, text, is_text=True)
            missing = [one for one in missing if one.column != text]
            yield plain if isinstance(plain, str) else {text: plain}
            continue
        first = first or row
        missing = [one for one in missing if pick(row, one.column) is MISSING]
        yield {
            key: _plain(row[key], number, key, one.is_text)
            for one in wanted
            if (key := _outer(row, one.column)) is not None
        }
    for one in missing if first else []:
        raise NoColumnError("what was given as data", one.column, column_names(first), one.setting)


def _outer(row: Iterable[str], column: str) -> str | None:
    """The column of a row in which a possibly dotted name is found."""
    names = row if isinstance(row, Mapping) else set(row)
    if column in names:
        return column
    return next((head for head, _ in dotted(column) if head in names), None)


def _plain(value: Any, number: int, column: str, is_text: bool) -> Any:
    """A value in JSON's types; what is missing (None, NaN, pandas.NA) is None."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)) or _is_a(value, "pandas", "NaT", "NA"):
        return None
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")  # what is not UTF-8 is mended and counted when it is read
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, number, column, is_text) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner, number, column, is_text) for inner in value]
    if is_text:
        raise UserError(f"data: row {number} holds a {type(value).__name__} in {column!r}, not a text")
    return str(value)


def _rows_of(objects: Any, wanted: Sequence[Wanted], split: str) -> Iterable[Any]:
    """Texts or dicts, one a row, of any of the accepted types."""
    if _is_a(objects, "datasets", "DatasetDict", "IterableDatasetDict"):
        if split not in objects:
            raise UserError(f"data has no split {split!r}; set data.split to one of: {', '.join(objects)}")
        objects = objects[split]
    if _is_a(objects, "pandas", "DataFrame") or _is_a(objects, "polars", "DataFrame"):
        return _frame_rows(objects, wanted)
    if _is_a(objects, "datasets", "Dataset"):
        return _data_set_rows(objects, wanted)
    if _is_a(objects, "pyarrow", "Table"):
        table = objects.select(_known_columns(objects.column_names, wanted, "the Table"))
        return (row for batch in table.to_batches(max_chunksize=BATCH) for row in batch.to_pylist())
    is_column = _is_a(objects, "pandas", "Series") or _is_a(objects, "polars", "Series")
    is_array = isinstance(objects, np.ndarray) and objects.ndim == 1
    if is_column or is_array or isinstance(objects, list | tuple) or _is_a(objects, "datasets", "IterableDataset"):
        return objects
    if isinstance(objects, Iterator):
        raise UserError(
            f"data is a {type(objects).__name__}, which can be read only once; give the function that makes it "
            "(data=make_texts, not data=make_texts()), or a list"
        )
    if callable(objects) and not isinstance(objects, type):
        return _called(objects)
    raise UserError(f"data cannot be a {type(objects).__name__}; give {ACCEPTED}")


def _called(factory: Callable[[], Any]) -> Iterable[Any]:
    made = factory()
    if isinstance(made, str | Mapping) or not isinstance(made, Iterable):
        raise UserError(
            f"the function given as data returns a {type(made).__name__}; let it return an iterator of texts"
        )
    return made


def _frame_rows(frame: Any, wanted: Sequence[Wanted]) -> Iterator[dict[str, Any]]:
    names = {str(name): name for name in frame.columns}
    if len(names) < len(frame.columns):
        raise UserError("the DataFrame has several columns of one name; rename them")
    columns = _known_columns(list(names), wanted, "the DataFrame")
    for values in zip(*(frame[names[name]] for name in columns), strict=True):
        yield dict(zip(columns, values, strict=True))


def _data_set_rows(data_set: Any, wanted: Sequence[Wanted]) -> Iterator[dict[str, Any]]:
    columns = _known_columns(data_set.column_names, wanted, "the Dataset")
    for batch in data_set.select_columns(columns).with_format(None).iter(batch_size=BATCH):
        for values in zip(*(batch[name] for name in columns), strict=True):
            yield dict(zip(columns, values, strict=True))


def _known_columns(names: Sequence[str], wanted: Sequence[Wanted], what: str) -> list[str]:
    """The columns of a table that hold what is wanted. Raises NoColumnError."""
    found = {one: _outer(names, one.column) for one in wanted}
    for one, outer in found.items():
        if outer is None:
            raise NoColumnError(what, one.column, names, one.setting)
    return list(dict.fromkeys(filter(None, found.values())))


def _is_a(value: Any, library: str, *names: str) -> bool:
    """Whether a value is of one of a library's types (or is its constant of that name), without importing it."""
    module = sys.modules.get(library)
    for name in names:
        known = getattr(module, name, None)
        if known is not None and (value is known or (isinstance(known, type) and isinstance(value, known))):
            return True
    return False
