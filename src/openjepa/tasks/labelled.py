"""Labelled texts of files as a classification: published splits, or one file that is split by hashes of its texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from openjepa.core.errors import UserError
from openjepa.core.tasks import Classification, classification
from openjepa.data.files.discovery import find_files
from openjepa.data.files.readers import Counts, Hints, ReaderOptions, read_files
from openjepa.data.text.sources import clean_text, is_held_out
from openjepa.tasks.sampling import drawn

HINTS = Hints(column="text", label="label", world="", source="")


class Labelled(NamedTuple):
    text: str
    label: str


class Columns(NamedTuple):
    """The columns of a file, and the labels to skip."""

    text: str
    label: str
    ignore_labels: Collection[str]


def labelled_texts(path: Path, columns: Columns, counts: Counts) -> Iterator[Labelled]:
    """Texts with their labels, in the order of the file; rows without one or the other are counted."""
    reading = ReaderOptions(columns.text, columns.label, "lines", hints=HINTS, root=path if path.is_dir() else None)
    for record in read_files(find_files(str(path), counts, HINTS), reading, counts):
        text = clean_text(record.value, "text", record.origin, counts)
        if not text:
            counts.add("row without a text", record.origin)
        elif record.label is None or str(record.label) == "":
            counts.add("row without a label", record.origin)
        elif str(record.label) not in columns.ignore_labels:
            yield Labelled(text, str(record.label))


def read_classification(
    name: str,
    train: Path,
    test: Path | None,
    columns: Columns,
    limits: tuple[int, int],
    test_fraction: float,
    counts: Counts,
) -> Classification:
    """Texts of `train` and `test`, at most `limits` of each (0 = all).

    Without `test`, the rows of `train` are split: those that a run with this `data.eval_fraction` holds out are test.
    Rows of test whose label train does not have are counted and left out. Raises UserError if nothing is left.
    """
    if test is None:
        rows = list(labelled_texts(train, columns, counts))
        train_rows = [row for row in rows if not is_held_out(row.text, test_fraction)]
        test_rows = [row for row in rows if is_held_out(row.text, test_fraction)]
    else:
        train_rows, test_rows = (list(labelled_texts(path, columns, counts)) for path in (train, test))
    train_rows, test_rows = (
        drawn(rows, limit, lambda row: row.text) for rows, limit in zip((train_rows, test_rows), limits, strict=True)
    )
    task = classification(name, train_rows, test_rows)
    if not task.test:
        raise UserError(f"{test or train} leaves no test text with a label that a training text has as well")
    for reason, count in (
        ("test text whose label train lacks", len(test_rows) - len(task.test)),
        ("test text that is also in train", len(set(task.test) & set(task.train))),
    ):
        if count:
            counts[reason] += count
    return task
