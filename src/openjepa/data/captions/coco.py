"""Annotation files in COCO's schema: JSON lists of images, annotations and categories.

Every row is checked before it is used: one that is no object, lacks a key or has a value of another type (a list for an
id, null for a file name) is left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError
from openjepa.data.files.discovery import open_bytes
from openjepa.data.files.readers import Counts

Section = list[dict[str, Any]]
Kinds = tuple[type, ...]

ID: Kinds = (int, str)
TEXT: Kinds = (str,)
NUMBER: Kinds = (int, float)
ANYTHING: Kinds = (object,)
SCHEMA = "COCO's schema (images: id, file_name; annotations: image_id, caption)"


def read_coco(file: Path, what: str, needed: Mapping[str, Mapping[str, Kinds]], counts: Counts) -> dict[str, Section]:
    """The sections of a file of `what`: of each, the rows that have the `needed` keys with values of these kinds.

    Raises UserError for a file that cannot be read, or in another schema: without such a section, or with a section
    that has no usable row.
    """
    try:
        with open_bytes(file.expanduser()) as stream:
            data = json.loads(stream.read().decode("utf-8-sig"))
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise UserError(f"{what} file {file} cannot be read ({error}); it is read as JSON in {SCHEMA}") from error
    found = {}
    for section, keys in needed.items():
        rows = data.get(section) if isinstance(data, dict) else None
        usable = [row for row in rows if _is_usable(row, keys, section, file, counts)] if isinstance(rows, list) else []
        if not isinstance(rows, list) or (rows and not usable):
            named = ", ".join(sorted(keys))
            raise UserError(f"{file} is not in COCO's schema: it needs a list {section!r} of {named}")
        found[section] = usable
    return found


def _is_usable(row: Any, keys: Mapping[str, Kinds], section: str, file: Path, counts: Counts) -> bool:
    if not isinstance(row, dict):
        counts.add(f"{section}: a {type(row).__name__} where an object should be", file.name)
        return False
    origin = f"{file.name}:{section} {row.get('id', row.get('image_id'))}"
    for key, kinds in keys.items():
        if key not in row:
            counts.add(f"{section}: without {key!r}", origin)
            return False
        value = row[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not ANYTHING):
            counts.add(f"{section}: {key!r} is {'null' if value is None else f'a {type(value).__name__}'}", origin)
            return False
    return True
