"""Raw records of local files, of the Hugging Face hub and of the story world, one at a time in constant memory.

A reader yields `Record`s and counts what it could not read, with the place of the first case; it never raises for a
bad line and never loses one silently. What nobody could use at all (no file, a corrupt archive, an unreachable hub)
is a UserError. Judging the texts themselves (empty, too short, held out) is the job of `sources`.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from openjepa.core import hub
from openjepa.core.errors import UserError

TxtRule = Literal["auto", "paragraphs", "lines", "files"]
EXTENSIONS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
LONGEST_LINE = 64 * 2**20  # bytes; a longer line is read in pieces, so that memory stays bounded
ENDLESS_STORIES = 100_000  # how many documents "all" means for the story world


class Counts(Counter[str]):
    """How many records were kept, mended or dropped, by reason; `first` holds where a reason was met first."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}

    def add(self, reason: str, place: str) -> None:
        self[reason] += 1
        self.first.setdefault(reason, place)


class Record(NamedTuple):
    """A text as found, whatever its type is, with its label and its place ("corpus.jsonl:17")."""

    text: Any
    label: Any
    place: str


class Hints(NamedTuple):
    """What an error tells the user to set: the settings that name the columns, and the source that needs no files."""

    column: str = "data.column"
    label: str = "data.label"
    world: str = "stories"


TEXT_HINTS = Hints()


def find_files(pattern: str, counts: Counts, hints: Hints = TEXT_HINTS) -> list[Path]:
    """Readable files behind a file name, a folder (searched recursively) or a glob pattern, in sorted order."""
    path = Path(pattern).expanduser()
    if path.is_file():
        if not _extension(path):
            raise UserError(f"data.source {pattern}: unknown extension; give one of {', '.join(EXTENSIONS)}")
        return [path]
    files = files_behind(path)
    for file in files:
        if not _extension(file):
            counts.add("file with another extension", str(file))
    readable = [file for file in files if _extension(file)]
    if not readable:
        raise nothing_readable(pattern, bool(files), EXTENSIONS, hints)
    return readable


def files_behind(path: Path) -> list[Path]:
    """Files of any kind behind a file, a folder (searched recursively) or a glob pattern, sorted, but hidden ones."""
    if path.exists():
        found = path.rglob("*") if path.is_dir() else [path]
    else:
        found = map(Path, glob(str(path), recursive=True))
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def nothing_readable(pattern: str, other_files: bool, extensions: Sequence[str], hints: Hints) -> UserError:
    """The error for a source without a file of these kinds; it may hold `other_files`."""
    is_dir = Path(pattern).expanduser().is_dir()
    what = f"holds no {', '.join(extensions)} file" if is_dir or other_files else "matches no file or folder"
    world = f"data.source={hints.world} (no files needed)"
    return UserError(f"data.source {pattern} {what}; check the path, or use {world}")


def read_files(
    files: Iterable[Path], column: str, label: str | None, txt: TxtRule, counts: Counts, hints: Hints = TEXT_HINTS
) -> Iterator[Record]:
    """Records of the files in the given order. Raises UserError naming a file that is damaged or cannot be opened."""
    for file in files:
        extension = _extension(file)
        try:
            if extension == ".parquet":
                yield from _read_parquet(file, column, label, hints)
                continue
            with cast(BinaryIO, gzip.open(file) if extension.endswith(".gz") else file.open("rb")) as stream:
                if extension.startswith(".jsonl"):
                    yield from _read_jsonl(stream, file.name, column, label, counts, hints)
                else:
                    yield from _read_txt(stream, file.name, txt, counts)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{file} cannot be read ({error}); repair or remove it") from error


def _extension(file: Path) -> str:
    return next((e for e in sorted(EXTENSIONS, key=len, reverse=True) if file.name.lower().endswith(e)), "")


def _lines(stream: BinaryIO, name: str, counts: Counts) -> Iterator[tuple[int, str]]:
    """Numbered lines as text without their ends; bytes that are not UTF-8 become U+FFFD and are counted."""
    for number, raw in enumerate(iter(partial(stream.readline, LONGEST_LINE), b""), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            counts.add("mended: not UTF-8", f"{name}:{number}")
            line = raw.decode("utf-8", errors="replace")
        yield number, line.rstrip("\r\n")


def _read_txt(stream: BinaryIO, name: str, rule: TxtRule, counts: Counts) -> Iterator[Record]:
    if rule == "files":
        text = "\n".join(line for _, line in _lines(stream, name, counts))
        yield Record(text, None, name)
        return
    if rule == "auto":
        head = stream.read(2**20).splitlines()
        stream.seek(0)
        blank = sum(not line.strip() for line in head)
        rule = "paragraphs" if blank * 20 >= len(head) else "lines"
    paragraph: list[str] = []
    start = 1
    for number, line in _lines(stream, name, counts):
        if rule == "lines":
            yield Record(line, None, f"{name}:{number}")
        elif line.strip():
            start = start if paragraph else number
            paragraph.append(line)
        elif paragraph:
            yield Record("\n".join(paragraph), None, f"{name}:{start}")
            paragraph = []
    if paragraph:
        yield Record("\n".join(paragraph), None, f"{name}:{start}")


def _read_jsonl(
    stream: BinaryIO, name: str, column: str, label: str | None, counts: Counts, hints: Hints
) -> Iterator[Record]:
    columns: set[str] = set()
    found = False
    for number, line in _lines(stream, name, counts):
        place = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            counts.add("line is not JSON", place)
            continue
        if not isinstance(row, dict):
            counts.add("line is not a JSON object", place)
        elif column not in row:
            columns.update(islice(row, 20))
            counts.add(f"line without column {column!r}", place)
        else:
            found = True
            yield Record(row[column], row.get(label) if label else None, place)
    if columns and not found:
        raise _no_column(name, column, columns, hints.column)


def _read_parquet(file: Path, column: str, label: str | None, hints: Hints) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [column, label] if label else [column]
    try:
        with pq.ParquetFile(file) as table:
            for name, key in zip(wanted, hints, strict=False):
                if name not in table.schema_arrow.names:
                    raise _no_column(file.name, name, table.schema_arrow.names, key)
            number = 0
            for batch in table.iter_batches(batch_size=256, columns=wanted):
                labels = batch.column(label).to_pylist() if label else [None] * len(batch)
                for text, name in zip(_texts(batch.column(column)), labels, strict=True):
                    yield Record(text, name, f"{file.name}:{number}")
                    number += 1
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a readable Parquet file ({_first_line(error)}); repair or remove it") from error


def _texts(column: Any) -> list[Any]:
    """Values of an Arrow column; as bytes where they are not the UTF-8 that the file says they are."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return column.cast("large_binary").to_pylist()


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
    """How each file of a data set on the Hugging Face hub is streamed, from a row on; one, if it is downloaded first.

    With `images`, a column of images gives the bytes of their files: broken ones are ours to count.
    The library's own shuffling and its saved states are not used: `shuffle` loses rows on resume (datasets 5.2).
    """
    if hub.absence() is not None and not hub.has_dataset(name):  # before an import of seconds
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
    name: str, place: str, rows: Any, column: str, label: str | None, hints: Hints, skip: int
) -> Iterator[Record]:
    iterator = _from_hub(name, hints, lambda: iter(rows.skip(skip) if skip else rows))
    for number in range(skip, 2**63):
        row = _from_hub(name, hints, lambda: next(iterator, None))
        if row is None:
            return
        if number == skip:
            for wanted, key in ((column, hints.column), (label, hints.label)):
                if wanted and wanted not in row:
                    raise _no_column(name, wanted, row, key)
        yield Record(row[column], row[label] if label else None, f"{place}:{number}")


def _from_hub(name: str, hints: Hints, ask: Callable[[], Any]) -> Any:
    """`ask()`, with every failure of the hub's client turned into one line that names the ways on."""
    try:
        return ask()
    except Exception as error:  # the clients (datasets, huggingface_hub, httpx, fsspec) share no base class
        raise _not_readable(name, hints, error) from error


def _not_readable(name: str, hints: Hints, error: Exception) -> UserError:
    return UserError(
        f"data.source={name}: {hub.failure(error, 'data set')}; give a local file or folder, data.source={hints.world} "
        "(made on the spot), or set HF_ENDPOINT to a mirror"
    )


def read_stories(limit: int, label: str | None, skip: int = 0) -> Iterator[Record]:
    """The story world's training stories from number `skip` on; `label` may name one of its factors."""
    from openjepa.data.worlds.stories import Stories

    stories = Stories(split="train", size=limit or ENDLESS_STORIES, seed=0)
    for index in range(skip, len(stories)):
        story = stories[index]
        if label and label not in story.factors:
            raise _no_column("stories", label, story.factors, "data.label")
        yield Record(story.text, story.factors[label] if label else None, f"stories:{index}")


def _no_column(where: str, column: str, known: Iterable[str], key: str) -> UserError:
    shown = ", ".join(sorted(map(str, known))[:20])
    return UserError(f"{where} has no column {column!r}; set {key} to one of: {shown}")


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:200]
