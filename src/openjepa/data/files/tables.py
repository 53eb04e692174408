"""Parquet, Arrow (Feather) and Excel files: rows of the wanted columns, a few at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openjepa.core.errors import UserError
from openjepa.data.files.records import Counts, NoColumnError, ReaderOptions, Record, dotted, in_one_line

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 256  # rows that are Python objects at once
LARGEST_WORKBOOK = 2**30  # bytes that a workbook may unpack to: its shared texts are held in memory


def read_parquet(file: Path, name: str, reading: ReaderOptions) -> Iterator[Record]:
    """Rows of a Parquet file. Raises NoColumnError; UserError if the file is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            columns = _Columns(table.schema_arrow, name, reading)
            wanted = [".".join(steps) for steps in columns.steps]
            for number, row in enumerate(columns.rows(table.iter_batches(batch_size=ROWS, columns=wanted))):
                yield Record(*row, f"{name}:{number}")
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a readable Parquet file ({in_one_line(error)}); repair or remove it") from error


def read_arrow(file: Path, name: str, reading: ReaderOptions) -> Iterator[Record]:
    """Rows of an Arrow file or stream, or of a Feather file. Raises as `read_parquet`."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as content:
            is_file = content.read(6) == b"ARROW1"
            content.seek(0)
            with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(content) as opened:
                columns = _Columns(opened.schema, name, reading)
            content.seek(0)
            fields = sorted({opened.schema.get_field_index(steps[0]) for steps in columns.steps})
            options = pa.ipc.IpcReadOptions(included_fields=fields)
            batches = _file_batches(content, options) if is_file else pa.ipc.open_stream(content, options=options)
            for number, row in enumerate(columns.rows(_slices(batches))):
                yield Record(*row, f"{name}:{number}")
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a readable Arrow file ({in_one_line(error)}); repair or remove it") from error


def _file_batches(content: Any, options: Any) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    reader = pa.ipc.open_file(content, options=options)
    return (reader.get_batch(index) for index in range(reader.num_record_batches))


def _slices(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            yield batch.slice(start, ROWS)


class _Columns:
    """The wanted columns of a table, found by name; a dotted name leads into a struct. Raises NoColumnError."""

    def __init__(self, schema: pa.Schema, name: str, reading: ReaderOptions) -> None:
        fields = {field.name: field.type for field in schema}
        self.steps: list[list[str]] = []
        for column, key in zip(reading.columns, reading.hints, strict=False):
            steps = _steps(fields, column)
            if steps is None:
                raise NoColumnError(name, column, _names(fields), key)
            self.steps.append(steps)

    def rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[Any, Any]]:
        """The text and the label of each row."""
        for batch in batches:
            text, *label = (_objects(_at(batch, steps)) for steps in self.steps)
            yield from zip(text, label[0] if label else [None] * len(text), strict=True)


def _steps(fields: Mapping[str, pa.DataType], column: str) -> list[str] | None:
    """The names that lead to a column, from the outermost one."""
    import pyarrow as pa

    if column in fields:
        return [column]
    for head, rest in dotted(column):
        kind = fields.get(head)
        if kind is not None and pa.types.is_struct(kind):
            steps = _steps({field.name: field.type for field in kind}, rest)
            if steps is not None:
                return [head, *steps]
    return None


def _names(fields: Mapping[str, pa.DataType]) -> Iterator[str]:
    import pyarrow as pa

    for name, kind in fields.items():
        yield name
        if pa.types.is_struct(kind):
            yield from (f"{name}.{field.name}" for field in kind)


def _at(batch: pa.RecordBatch, steps: list[str]) -> Any:
    column = batch.column(steps[0])
    for step in steps[1:]:
        column = column.flatten()[column.type.get_field_index(step)]  # null where the whole struct is
    return column


def _objects(column: Any) -> list[Any]:
    """Values of an Arrow column; as bytes where they are not valid UTF-8.

    Raises ArrowInvalid if the offsets within the file lead outside of it.
    """
    import pyarrow as pa

    try:
        column.validate(full=True)
        return column.to_pylist()
    except (pa.ArrowInvalid, UnicodeDecodeError):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            raw = column.cast("large_binary")
            raw.validate(full=True)
            return raw.to_pylist()
        column.validate()
        return [_object(value) for value in column]


def _object(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:  # within a list or a struct: no text, whatever it holds
        return []


def read_xlsx(file: Path, name: str, reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    """Rows of those sheets of an Excel workbook whose first row has the wanted columns; other sheets are counted.

    Raises NoColumnError if no sheet has them; UserError if the file is damaged or openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError:
        raise UserError(f'{file.name}: .xlsx files need openpyxl; pip install "openjepa[files]"') from None
    without: NoColumnError | None = None
    try:
        with zipfile.ZipFile(file) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > LARGEST_WORKBOOK:
            raise UserError(f"{file} unpacks to {size / 2**30:.1f} GB; save the sheet as .csv")
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        found = False
        for sheet in book.worksheets:
            rows = sheet.iter_rows(values_only=True)
            header = ["" if cell is None else str(cell).strip() for cell in next(rows, ())]
            origin = f"{name}:{sheet.title}"
            missing = [pair for pair in zip(reading.columns, reading.hints, strict=False) if pair[0] not in header]
            if missing:
                without = without or NoColumnError(origin, missing[0][0], filter(None, header), missing[0][1])
                counts.add(f"sheet without column {missing[0][0]!r}", origin)
            else:
                found = True
                yield from _sheet_rows(rows, header, origin, reading)
        book.close()
    except UserError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsers do: KeyError, ValueError, ParseError ...
        raise UserError(f"{file} is not a readable .xlsx file ({in_one_line(error)}); save it again") from error
    if without is not None and not found:
        raise without


def _sheet_rows(rows: Iterator[tuple], header: list[str], origin: str, reading: ReaderOptions) -> Iterator[Record]:
    indices = [header.index(column) for column in reading.columns]
    for number, row in enumerate(rows, start=2):
        if any(cell is not None for cell in row):
            text, *label = (row[index] if index < len(row) else None for index in indices)
            yield Record(text, label[0] if label else None, f"{origin}:{number}")
