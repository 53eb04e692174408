"""Annotation files in COCO's schema: JSON lists of images, of what is said of them, and of kinds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError

Section = list[dict[str, Any]]


def read_coco(file: Path, what: str, needed: Mapping[str, Set[str]]) -> dict[str, Section]:
    """The sections of a file of `what`, each a list of rows that have at least the `needed` keys.

    Raises UserError for a file that cannot be read, or in another schema.
    """
    try:
        data = json.loads(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{what} file {file} cannot be read ({error})") from error
    for section, keys in needed.items():
        rows = data.get(section) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
            raise UserError(f"{file} is not in COCO's schema: it needs a list {section!r} of {', '.join(sorted(keys))}")
    return data
