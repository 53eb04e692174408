"""Find data files, tell their kind by name, and open their bytes, decompressed as they are read."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path
from typing import BinaryIO, Literal, cast

from openjepa.core.errors import UserError
from openjepa.data.files.records import LEFT_OUT, TEXT_HINTS, Counts, Hints

Kind = Literal["txt", "jsonl", "json", "csv", "tsv", "markdown", "html", "parquet", "arrow", "xlsx"]

STREAMS: dict[str, Kind] = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}  # may also be compressed
TABLES: dict[str, Kind] = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".xlsx": "xlsx"}
COMPRESSED = (".gz", ".zst")
READABLE = (*STREAMS, *TABLES)
WITHOUT_COLUMNS: tuple[Kind, ...] = ("txt", "markdown", "html")
READABLE_NAMES = f"{', '.join(READABLE)} (the text formats also as .gz, .zst)"

_UNPICKLED = "opening it can run code; save the table as .parquet or .jsonl (pandas: df.to_parquet)"
_EXTRACT = "extract its text to a .txt file (pandoc FILE -t plain -o FILE.txt)"
WAYS_ON = {
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".npz"), _UNPICKLED),
    **dict.fromkeys((".doc", ".docx", ".odt", ".rtf", ".epub", ".tex", ".rst"), _EXTRACT),
    ".pdf": "extract its text to a .txt file (pdftotext FILE.pdf FILE.txt)",
    **dict.fromkeys((".xls", ".xlsm", ".ods"), "save the sheet as .xlsx or .csv"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "unpack it and give the folder"),
    **dict.fromkeys((".bz2", ".xz", ".lz4"), "decompress it, or compress it with gzip or zstd"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "export the table as .csv"),
}  # formats that are not read -> what to do instead
KNOWN_SUFFIXES = (*READABLE, *COMPRESSED, *WAYS_ON)  # a source that ends in one of them means a file, found or not

# what `save_to_disk` of the datasets library writes to a folder
SAVED = "state.json"
SAVED_DICT = "dataset_dict.json"
SAVED_FILES = (SAVED, SAVED_DICT, "dataset_info.json")


def kind_of(file: Path) -> Kind | None:
    """What kind of data a file holds, by its name; None if it is no kind that is read."""
    suffix, compressed = _suffixes(file)
    return STREAMS.get(suffix) or (None if compressed else TABLES.get(suffix))


def _suffixes(file: Path) -> tuple[str, str]:
    """The lower-case suffix that says what a file holds, and that of its compression ("" if there is none)."""
    name = file.name.lower()
    compression = next((end for end in COMPRESSED if name.endswith(end)), "")
    return Path(name.removesuffix(compression)).suffix, compression


def find_files(pattern: str, counts: Counts, hints: Hints = TEXT_HINTS, split: str = "train") -> list[Path]:
    """Readable files behind a file name, a folder (searched recursively) or a glob pattern, in sorted order.

    Of a folder that `save_to_disk` of the datasets library wrote, the files of the data set; of several splits, those
    of `split`. Other files of a folder are counted by extension. Raises UserError if there is nothing to read.
    """
    path = Path(pattern).expanduser()
    if os.path.isfile(path):
        if kind_of(path) is None:
            raise UserError(f"{hints.source}{pattern}: {_way_on(path)}")
        return [path]
    if os.path.isdir(path) and (saved := _saved_data_set(path, split)) is not None:
        return saved
    files = files_behind(path)
    readable = [file for file in files if kind_of(file) and not _is_bookkeeping(file)]
    if not readable:
        raise nothing_readable(pattern, files, READABLE, hints)
    for file in files:
        if kind_of(file) is None and not _is_bookkeeping(file):
            counts.add(LEFT_OUT + extension(file), str(file))
    return readable


def files_behind(path: Path) -> list[Path]:
    """Files of any kind behind a file, a folder (searched recursively) or a glob pattern, sorted.

    Hidden files, and what hidden folders within the folder hold, are not among them. Raises UserError for the root of
    the file system, which nobody means.
    """
    if os.path.isdir(path):
        if path.resolve() == Path(path.resolve().anchor):
            raise UserError(f"{path} is the whole file system; name the folder in it that holds the data")
        found = (file for file in path.rglob("*") if not _is_hidden(file.relative_to(path)))
    elif os.path.exists(path):
        found = iter([path])
    else:
        found = (file for file in map(Path, glob(str(path), recursive=True)) if not file.name.startswith("."))
    return sorted(file for file in found if os.path.isfile(file))


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def extension(file: Path) -> str:
    """A file's extension, as in a list of what a folder holds."""
    suffix, compression = _suffixes(file)
    return suffix + compression or "file without an extension"


def nothing_readable(pattern: str, files: Sequence[Path], extensions: Iterable[str], hints: Hints) -> UserError:
    """The error for a source without a file of these kinds; it holds `files`."""
    if not files and not os.path.isdir(os.path.expanduser(pattern)):
        what = "matches no file or folder; check the path"
    else:
        held = Counter(extension(file) for file in files).most_common(10)
        holds = "holds " + ", ".join(f"{count} x {name}" for name, count in held) if held else "is empty"
        what = f"holds no {', '.join(extensions)} file; it {holds}"
        what += f"; {_way_on(files[0])}" if len(held) == 1 and files[0].suffix.lower() in WAYS_ON else ""
    world = f"; data.source={hints.world} needs no files" if hints.world else ""
    return UserError(f"{hints.source}{pattern} {what}{world}")


def _way_on(file: Path) -> str:
    """Why a file is not read, and what to do."""
    suffix, compression = _suffixes(file)
    ending = file.suffix.lower()
    if compression and suffix in TABLES:
        return f"a {suffix} file is not read in compressed form; decompress it"
    if ending in WAYS_ON:
        return f"{ending} files are not read: {WAYS_ON[ending]}"
    return f"unknown extension; give one of {READABLE_NAMES}"


def _saved_data_set(folder: Path, split: str) -> list[Path] | None:
    """The Arrow files of a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; None for others."""
    if (folder / SAVED_DICT).is_file():
        splits = _bookkeeping(folder / SAVED_DICT).get("splits")
        known = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
        if split not in known:
            raise UserError(f"{folder} has no split {split!r}; set data.split to one of: {', '.join(known)}")
        folder = folder / Path(split).name  # a name, not a path that leads elsewhere
    elif not (folder / SAVED).is_file():
        return None
    listed = _bookkeeping(folder / SAVED).get("_data_files")
    names = [str(file.get("filename")) for file in listed or [] if isinstance(file, dict)]
    files = [folder / Path(name).name for name in names]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{folder} is a saved data set whose Arrow files are missing; save it again")
    return files


def _bookkeeping(file: Path) -> dict:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); save the data set again") from error
    return found if isinstance(found, dict) else {}


def _is_bookkeeping(file: Path) -> bool:
    """Whether a file only describes the data set that is saved with it."""
    return file.name in SAVED_FILES and any((file.parent / name).is_file() for name in (SAVED, SAVED_DICT))


def open_bytes(file: Path) -> BinaryIO:
    """A file's content, decompressed, and converted to UTF-8 if its byte order mark is that of UTF-16."""
    compression = _suffixes(file)[1]
    if compression == ".gz":
        stream = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(file)), 2**16)
    elif compression == ".zst":
        stream = io.BufferedReader(_Zstd(file), 2**16)
    else:
        stream = file.open("rb")
    if stream.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return io.BufferedReader(_Utf16(stream), 2**16)
    return stream


def head_of(file: Path, size: int = 2**20) -> bytes:
    """The first `size` bytes of a file's content, or all of it."""
    with open_bytes(file) as stream:
        return stream.read(size)


class _Zstd(io.RawIOBase):
    """A zstd file's content, by Arrow's decompressor."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        self._content = pa.input_stream(str(file), compression="zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # ty: ignore[incompatible-method-override]
        return self._content.readinto(buffer)

    def close(self) -> None:
        self._content.close()
        super().close()


class _Utf16(io.RawIOBase):
    """UTF-16 as UTF-8. Invalid UTF-16 (half a surrogate pair) becomes invalid UTF-8, and is counted as such."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # ty: ignore[incompatible-method-override]
        while not self._rest:
            raw = self._stream.read(2**15)
            try:
                self._rest = self._decoder.decode(raw, final=not raw).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError:  # half a character at the end
                self._rest = b"\xff"
                self._decoder.reset()
            if not raw:
                break
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()
