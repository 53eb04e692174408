"""Captions of image files, from a separate file: COCO's annotations, or a table with one caption a line.

    captions_train2017.json      COCO's schema; `file_name` is looked up in the folder of images
    captions.tsv .csv .jsonl     a table: in one column the image's file name, relative to that folder, in another its
    .ndjson .parquet .arrow      caption, or a list of several; an image may have several lines
    .xlsx, a .json array

A file name that leads out of the folder (absolute, or with ..) is refused. What cannot be used is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from openjepa.core.errors import UserError
from openjepa.data.captions.coco import ANYTHING, ID, SCHEMA, TEXT, read_coco
from openjepa.data.files.discovery import WITHOUT_COLUMNS, head_of, kind_of
from openjepa.data.files.readers import Counts, Hints, ReaderOptions, Record, read_files

CAPTIONS = {"images": {"id": ID, "file_name": TEXT}, "annotations": {"image_id": ID, "caption": ANYTHING}}
TABLE = "a table (.tsv, .csv, .jsonl, .parquet) with an image's file name in data.column and a caption in data.label"
OUTSIDE = "image file outside of data.source"
HINTS = Hints(world="scenes", source="data.captions ")


def captions_in(annotations: Path, folder: Path, columns: tuple[str, str], counts: Counts) -> Iterator[Record]:
    """The images that a file of captions names, in its order, each with all its captions (a list) as its label.

    `columns` of a table: file name of the image, caption. Raises UserError for a file that is neither a table nor in
    COCO's schema.
    """
    kind = kind_of(annotations)
    if kind == "json" and not head_of_file(annotations).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return coco_records(annotations, folder, counts)
    if kind is None or kind in WITHOUT_COLUMNS:
        raise UserError(f"captions file {annotations} is of no kind that is read; give a .json in {SCHEMA}, or {TABLE}")
    return table_records(annotations, folder, columns, counts)


def head_of_file(file: Path) -> bytes:
    """The first bytes. Raises UserError if the file cannot be read."""
    try:
        return head_of(file, 2**10)
    except (OSError, EOFError) as error:
        raise UserError(
            f"captions file {file} cannot be read ({error}); give a .json in {SCHEMA}, or {TABLE}"
        ) from error


def coco_records(annotations: Path, folder: Path, counts: Counts) -> Iterator[Record]:
    """The images that a file in COCO's schema lists. Captions of images that it does not list are counted.

    Raises UserError for a file in another schema.
    """
    data = read_coco(annotations, "captions", CAPTIONS, counts)
    captions: dict[Any, list[Any]] = {}
    for row in data["annotations"]:
        captions.setdefault(row["image_id"], []).append(row["caption"])
    images: dict[Any, str] = {}
    for row in data["images"]:
        if row["id"] in images:
            counts.add("image listed twice", f"{annotations.name}:image {row['id']}")
        images.setdefault(row["id"], row["file_name"])
    for image, texts in captions.items():
        if image not in images:
            for _ in texts:
                counts.add("caption of an image that is not listed", f"{annotations.name}:image {image}")
    for image, name in images.items():
        file = file_within(folder, name, f"{annotations.name}:image {image}", counts)
        if file is not None:
            yield Record(file, captions.get(image, []), str(file))


def table_records(table: Path, folder: Path, columns: tuple[str, str], counts: Counts) -> Iterator[Record]:
    """The images that a table names. Raises UserError if it lacks one of the columns."""
    captions: dict[Path, list[Any]] = {}
    for row in read_files([table], ReaderOptions(*columns, hints=HINTS), counts):
        file = file_within(folder, row.value, row.origin, counts)
        if file is not None:
            captions.setdefault(file, []).extend(row.label if isinstance(row.label, list) else [row.label])
    for file, texts in captions.items():
        yield Record(file, texts, str(file))


def file_within(folder: Path, name: Any, origin: str, counts: Counts) -> Path | None:
    """The file of this name in `folder`; None (counted) for what is no name, or leads out of the folder."""
    if not isinstance(name, str) or not name.strip():
        found = "is missing" if name is None or isinstance(name, str) else f"is a {type(name).__name__}"
        counts.add(f"file name of an image {found}", origin)
        return None
    written = PureWindowsPath(name.strip())  # reads both kinds of slashes, and drives
    if written.anchor or ".." in written.parts:
        counts.add(OUTSIDE, origin)
        return None
    return folder / name.strip()
