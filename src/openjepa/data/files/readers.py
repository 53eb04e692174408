"""Raw records of local files, of the Hugging Face hub and of the story world, one at a time in constant memory.

A reader yields `Record`s and counts what it could not read, with the origin of the first case; it never raises for a
bad line and never loses one silently. What cannot be used at all (no file, a corrupt archive, an unreachable hub)
is a UserError. `sources` checks the texts themselves (empty, too short, held out).

    discovery    which files there are, their kinds, their bytes      texts      .txt, .md, .html
    json_values  .jsonl, .ndjson, .json                               delimited  .csv, .tsv
    tables       .parquet, .arrow, .feather, .xlsx
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from openjepa.core import hub
from openjepa.core.errors import UserError
from openjepa.data.files.delimited import read_delimited
from openjepa.data.files.discovery import kind_of
from openjepa.data.files.json_values import read_json
from openjepa.data.files.records import (
    MISSING,
    TEXT_HINTS,
    UNUSABLE,
    Counts,
    Hints,
    NoColumnError,
    ReaderOptions,
    Record,
    column_names,
    in_one_line,
    pick,
)
from openjepa.data.files.tables import read_arrow, read_parquet, read_xlsx
from openjepa.data.files.texts import read_markup, read_txt


def read_files(files: Iterable[Path], reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    """Records of the files in the given order.

    Raises UserError naming a file that is damaged, cannot be opened or lacks a column; but a .json file that a folder
    holds and that lacks the column (settings of some program, say) is counted and left out.
    """
    for file in files:
        name = name_of(file, reading)
        try:
            for record in _bounded(_records(file, name, reading, counts), reading, counts):
                if record.value is not UNUSABLE or reading.every_record:
                    yield record
        except NoColumnError as error:
            if reading.root is None or kind_of(file) != "json":
                raise
            counts.add(f"file without column {reading.column!r}", f"{name}, which has {error.known}")
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{file} cannot be read ({in_one_line(error)}); repair or remove it") from error


def _bounded(records: Iterator[Record], reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    """The records; a text that is longer than a line may be becomes UNUSABLE, and is counted."""
    for record in records:
        if isinstance(record.value, str | bytes) and len(record.value) > reading.max_bytes:
            counts.add(reading.too_long("text"), record.origin)
            record = record._replace(value=UNUSABLE)
        yield record


def name_of(file: Path, reading: ReaderOptions) -> str:
    """The prefix of the origins of a file's records: its name, or its path within the folder that was given."""
    if reading.root is not None and file.is_relative_to(reading.root):
        return file.relative_to(reading.root).as_posix()
    return file.name


def _records(file: Path, name: str, reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    kind = kind_of(file)
    match kind:
        case "txt":
            return read_txt(file, name, reading, counts)
        case "jsonl" | "json":
            return read_json(file, name, kind, reading, counts)
        case "csv" | "tsv":
            return read_delimited(file, name, kind, reading, counts)
        case "markdown" | "html":
            return iter([read_markup(file, name, kind, reading, counts)])
        case "parquet":
            return read_parquet(file, name, reading)
        case "arrow":
            return read_arrow(file, name, reading)
        case "xlsx":
            return read_xlsx(file, name, reading, counts)
        case None:
            raise UserError(f"{file} is of no kind that is read")


def hub_shards(
    name: str,
    config: str | None,
    split: str,
    streaming: bool,
    column: str,
    label: str | None,
    hints: Hints = TEXT_HINTS,
    images: bool = False,
) -> list[Callable[[int], Iterator[Record]]]:
    """A reader for each file of a data set on the Hugging Face hub, from a row on; one, if it is downloaded first.

    With `images`, a column of images gives the bytes of their files, so that broken ones can be counted.
    The library's own shuffling and its saved states are not used: `shuffle` loses rows on resume (datasets 5.2).
    """
    if hub.absence() not in (None, hub.OFFLINE) and not hub.has_dataset(name):  # before a slow import
        raise _not_readable(name, hints, OSError())
    from datasets import Image, load_dataset

    with hub.reaching():
        rows = _from_hub(name, hints, lambda: load_dataset(name, config, split=split, streaming=streaming))
    if images and isinstance((rows.features or {}).get(column), Image):
        rows = rows.cast_column(column, Image(decode=False))
    if not streaming or rows.num_shards == 1:
        return [partial(_read_hub, name, name, rows, column, label, hints)]
    shards = (rows.shard(num_shards=rows.num_shards, index=index) for index in range(rows.num_shards))
    return [partial(_read_hub, name, f"{name}:{i}", shard, column, label, hints) for i, shard in enumerate(shards)]


def _read_hub(
    name: str, origin: str, rows: Any, column: str, label: str | None, hints: Hints, skip: int
) -> Iterator[Record]:
    iterator = _from_hub(name, hints, lambda: iter(rows.skip(skip) if skip else rows))
    for number in range(skip, 2**63):
        row = _from_hub(name, hints, lambda: next(iterator, None))
        if row is None:
            return
        text = pick(row, column)
        target = pick(row, label) if label else None
        if number == skip:
            for value, wanted, key in ((text, column, hints.column), (target, label, hints.label)):
                if value is MISSING:
                    raise NoColumnError(name, str(wanted), column_names(row), key)
        value, named = (None if found is MISSING else found for found in (text, target))
        yield Record(value, named, f"{origin}:{number}")


def _from_hub(name: str, hints: Hints, call: Callable[[], Any]) -> Any:
    """Return `call()`; any failure of the hub's client becomes a UserError of one line with the alternatives."""
    try:
        return call()
    except Exception as error:  # the clients (datasets, huggingface_hub, httpx, fsspec) share no base class
        raise _not_readable(name, hints, error) from error


def _not_readable(name: str, hints: Hints, error: Exception) -> UserError:
    return UserError(
        f"data.source={name}: {hub.failure(error, 'data set')}; give a local file or folder, data.source={hints.world} "
        "(needs no files), or set HF_ENDPOINT to a mirror"
    )


def read_stories(size: int, label: str | None, skip: int = 0) -> Iterator[Record]:
    """The first `size` training stories of the world, from number `skip` on; `label` may name one of their factors."""
    from openjepa.data.worlds.stories import Stories

    stories = Stories(split="train", size=size, seed=0)
    for index in range(skip, len(stories)):
        story = stories[index]
        if label and label not in story.factors:
            raise NoColumnError("stories", label, story.factors, "data.label")
        yield Record(story.text, story.factors[label] if label else None, f"stories:{index}")
