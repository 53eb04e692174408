"""Sources of images: records of the scenes world, of files and of the Hugging Face hub, one at a time, undecoded.

scenes                       the offline synthetic world: no file, no network
photos/ 'photos/**/*.jpg'    image files; the folder that holds an image is its label, or one above it (`label_level`)
train.parquet shards/        a column of image bytes, or of {bytes, path} as Hugging Face stores them
owner/name  hub:name:config  a data set of the Hugging Face hub, downloaded or streamed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.data.files.discovery import extension, files_behind, nothing_readable
from openjepa.data.files.readers import Counts, Hints, ReaderOptions, Record, hub_shards, read_files
from openjepa.data.files.records import LEFT_OUT
from openjepa.data.images.decode import SUFFIXES
from openjepa.data.text.sources import source_kind

HINTS = Hints(world="scenes")
WORLD = "scenes"
LARGEST_MB = 1024  # of an image file in a table
READABLE = (*SUFFIXES, ".parquet")


class ImageDataConfig(BaseConfig):
    """Section `data` of an image recipe. A plain string stands for `source`."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"source": (WORLD,), "eval_source": (WORLD,)}

    SHORTHAND = "source"
    FIRST = ("source", "size", "column", "label", "images")

    source: str = WORLD
    """scenes (a synthetic world), an image file, folder or glob, a .parquet file or folder of them, or hub
    owner/name[:config]"""
    size: int = Field(48, ge=8)
    """side in pixels of what the networks read; larger images are shrunk, and cut to a square"""
    column: str = "image"
    """Parquet and hub: column that holds the image"""
    label: str | None = None
    """Parquet and hub: column that probes predict; unset = none (image files: the name of a folder)"""
    label_level: int = 1
    """image files: which folder's name is the label: 1 = the one an image lies in, 2 = that one's parent, ...; counted
    from data.source down: -1 = the first one inside it (cats/in/1.jpg is of cats by 2 or -1), -2 = the second"""
    split: str = "train"
    """split of a hub data set to read"""
    streaming: bool = False
    """hub: read over the network without keeping the files; decoded images are kept"""
    images: int = Field(0, ge=0)
    """images to take from the start of the source, 0 = all of them (of scenes: world_images); only usable ones count,
    held-out ones included"""
    world_images: int = Field(12_000, ge=1)
    """how many images scenes has where `images` is 0; not used for other sources"""
    eval_source: str | None = None
    """a separate source for the held-out images, with the same columns; unset = a share of `source`"""
    eval_fraction: float = Field(0.05, gt=0, lt=1)
    """share of the images held out from training, chosen by their content; not with eval_source"""
    probe_images: int = Field(4000, ge=10)
    """labelled training images to fit probes on; at least 1000 held-out ones test them, or a quarter as many"""

    @property
    def generated_images(self) -> int:
        """Number of images that the offline world generates."""
        return self.images or self.world_images


def records(cfg: ImageDataConfig, source: str, counts: Counts) -> Iterator[Record]:
    """Every image of one source, undecoded, with its label and origin. Raises UserError if it cannot be read."""
    kind, location = source_kind(source, WORLD, READABLE)
    if kind == "world":
        yield from _scenes(cfg)
    elif kind == "files":
        files = _readable_files(location, counts)
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
        tables = [file for file in files if file.suffix.lower() == ".parquet"]
        for file, label in zip(pictures, folder_labels(pictures, source_root(location), cfg.label_level), strict=True):
            yield Record(file, label, str(file))
        yield from read_files(tables, ReaderOptions(cfg.column, cfg.label, max_line_mb=LARGEST_MB, hints=HINTS), counts)
    else:
        name, _, config = location.partition(":")
        for read in hub_shards(
            name, config or None, cfg.split, cfg.streaming, cfg.column, cfg.label, HINTS, images=True
        ):
            yield from read(0)


def image_files(source: str) -> list[Path] | None:
    """Readable files behind a file name, a folder (searched recursively) or a glob pattern, in sorted order.

    None if `source` names no files. Raises UserError if it names none that can be read.
    """
    kind, location = source_kind(source, WORLD, READABLE)
    return _readable_files(location) if kind == "files" else None


def _readable_files(pattern: str, counts: Counts | None = None) -> list[Path]:
    """Files of a kind that is read; the others are counted by their extension."""
    files = files_behind(Path(pattern).expanduser())
    readable = [file for file in files if file.suffix.lower() in READABLE]
    if not readable:
        raise nothing_readable(pattern, files, READABLE, HINTS)
    for file in files:
        if counts is not None and file.suffix.lower() not in READABLE:
            counts.add(LEFT_OUT + extension(file), str(file))
    return readable


def source_root(pattern: str) -> Path:
    """The folder in which the files of a source lie: the source, or of a pattern what is before its wildcards."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        return path
    fixed = list(takewhile(lambda part: not any(sign in part for sign in "*?["), path.parts[:-1]))
    return Path(*fixed)


def folder_labels(files: Sequence[Path], root: Path, level: int) -> list[str | None]:
    """The label of each file by the folder at `label_level`; None for all if they lie in one such folder.

    Raises UserError if `level` is 0, or if some files have no such folder below `root`.
    """
    if level == 0:
        raise UserError(
            "data.label_level=0 names no folder: 1 = the one an image lies in, -1 = the first in data.source"
        )
    folders = [_folder_at(file, root, level) for file in files]
    without = [file for file, folder in zip(files, folders, strict=True) if folder is None]
    if without:
        where = "above the images" if level > 0 else "below data.source"
        first = without[0].relative_to(root)
        raise UserError(
            f"data.label_level={level}: {len(without)} of {len(files)} images in {root} have no folder {abs(level)} "
            f"levels {where} (first: {first}); move them, or choose another level: 1 = the folder that an image lies "
            "in, -1 = the first one inside data.source"
        )
    names = [folder.name for folder in folders if folder is not None]
    return [*names] if len(set(folders)) > 1 else [None] * len(files)


def _folder_at(file: Path, root: Path, level: int) -> Path | None:
    """The folder whose name labels a file; None if it would not lie inside `root`. Level 1 may be `root` itself."""
    if level == 1:
        return file.parent
    folders = [*reversed(file.relative_to(root).parents)][1:] if file.is_relative_to(root) else []  # from the top down
    at = -level - 1 if level < 0 else len(folders) - level
    return root / folders[at] if 0 <= at < len(folders) else None


def _scenes(cfg: ImageDataConfig) -> Iterator[Record]:
    from openjepa.data.worlds.scenes import Scenes

    scenes = Scenes("train", cfg.generated_images, pixels=cfg.size)
    for index in range(len(scenes)):
        yield Record(scenes.image(index), None, f"{WORLD}:{index}")
