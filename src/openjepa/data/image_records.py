"""Where images come from: records of the scenes world, of files and of the Hugging Face hub, one at a time, undecoded.

scenes                       the offline synthetic world: no file, no network
photos/ 'photos/**/*.jpg'    image files; the folder that holds an image is its label
train.parquet shards/        a column of image bytes, or of {bytes, path} as Hugging Face stores them
owner/name  hub:name:config  a data set of the Hugging Face hub, downloaded or streamed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from openjepa.core.config import BaseConfig
from openjepa.data.decode import SUFFIXES
from openjepa.data.files import files_behind, nothing_readable
from openjepa.data.readers import Counts, Hints, Reading, Record, hub_shards, read_files
from openjepa.data.sources import source_kind

HINTS = Hints(world="scenes")
WORLD = "scenes"
READABLE = (*SUFFIXES, ".parquet")
ENDLESS_SCENES = 20_000  # how many images "all" means for the scenes world


class ImageDataConfig(BaseConfig):
    """Section `data` of an image recipe. A plain string stands for `source`."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"source": (WORLD,), "eval_source": (WORLD,)}

    source: str = WORLD
    """scenes (offline world); image file, folder or glob; .parquet file or folder of them; hub owner/name[:config]"""
    size: int = Field(48, ge=8)
    """side in pixels of what the networks see; larger images are shrunk, and cut to a square"""
    column: str = "image"
    """Parquet and hub: column that holds the image"""
    label: str | None = None
    """Parquet and hub: column that probes predict; unset = none (image files: the name of their folder)"""
    config: str | None = None
    """configuration (subset) of a hub data set; may also follow the name after a colon"""
    split: str = "train"
    """split of a hub data set to read"""
    streaming: bool = False
    """hub: read over the network without keeping the files; decoded images are kept all the same"""
    images: int = Field(0, ge=0)
    """usable images to take from the start of the source, held-out ones included; 0 = all (scenes: 20000)"""
    eval_source: str | None = None
    """a source of its own for the held-out images, with the same columns; unset = a share of `source`"""
    eval_fraction: float = Field(0.05, gt=0, lt=1)
    """share of the images held out from training, chosen by their content; not with eval_source"""
    probe_images: int = Field(4000, ge=10)
    """labelled training images that probes learn from; at least 1000 held-out ones test them, or a quarter as many"""

    @model_validator(mode="before")
    @classmethod
    def _plain_string_is_source(cls, value: Any) -> Any:
        return {"source": str(value)} if isinstance(value, str | Path) else value


def records(cfg: ImageDataConfig, source: str, counts: Counts) -> Iterator[Record]:
    """Every image of one source, undecoded, with its label and place. Raises UserError if it cannot be read."""
    kind, place = source_kind(source, WORLD, READABLE)
    if kind == "world":
        yield from _scenes(cfg)
    elif kind == "files":
        files = _readable_files(place)
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
        tables = [file for file in files if file.suffix.lower() == ".parquet"]
        labelled = len({file.parent for file in pictures}) > 1
        for file in pictures:
            yield Record(file, file.parent.name if labelled else None, str(file))
        yield from read_files(tables, Reading(cfg.column, cfg.label, hints=HINTS), counts)
    else:
        name, _, config = place.partition(":")
        subset = config or cfg.config
        for read in hub_shards(name, subset, cfg.split, cfg.streaming, cfg.column, cfg.label, HINTS, images=True):
            yield from read(0)


def image_files(source: str) -> list[Path] | None:
    """Readable files behind a file name, a folder (searched recursively) or a glob pattern, in sorted order.

    None if `source` names no files. Raises UserError if it names none that can be read.
    """
    kind, place = source_kind(source, WORLD, READABLE)
    return _readable_files(place) if kind == "files" else None


def _readable_files(pattern: str) -> list[Path]:
    files = files_behind(Path(pattern).expanduser())
    readable = [file for file in files if file.suffix.lower() in READABLE]
    if not readable:
        raise nothing_readable(pattern, files, READABLE, HINTS)
    return readable


def _scenes(cfg: ImageDataConfig) -> Iterator[Record]:
    from openjepa.data.worlds.scenes import Scenes

    scenes = Scenes("train", cfg.images or ENDLESS_SCENES, pixels=cfg.size)
    for index in range(len(scenes)):
        yield Record(scenes.image(index), None, f"{WORLD}:{index}")
