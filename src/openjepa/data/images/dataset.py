"""Decoded images: decoded once, stored as raw bytes, memory-mapped from then on.

Making an `ImageSet` is cheap. The first `len()` or `[i]` reads the source once, decodes every image with Pillow (on all
cores: it releases the GIL while decoding) and writes training and held-out images under `cache_dir()/images/<key>/` as
[N, S, S, 3] uint8; the key depends on everything that could change a pixel. From then on an image costs a copy of
S * S * 3 bytes. The folder is written atomically.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from openjepa.core.atomic import replaced_folder
from openjepa.core.errors import UserError
from openjepa.data.files.readers import Counts, Record
from openjepa.data.images.decode import decode, quiet
from openjepa.data.images.sources import WORLD, ImageDataConfig, image_files, records
from openjepa.data.loading.cache import cache_dir, cache_lock, code_version, file_versions, in_share
from openjepa.data.text.sources import nothing_usable

FORMAT = 3  # of the cache; raise it when images are decoded or stored differently
NOT_OF_IMAGES = {"probe_images", "objects", "eval_objects", "world_images"}  # settings that change no image
SPLITS = ("train", "eval")
CHUNK = 512  # images decoded together
KEPT = "images"
WIDEST_RAW = 32  # pixels

Read = Callable[[ImageDataConfig, str, Counts], Iterator[Record]]  # every image of one source, undecoded


@dataclass(frozen=True)
class _Files:
    """The files of one split."""

    folder: Path
    split: str

    @property
    def pixels(self) -> Path:
        return self.folder / f"{self.split}.u8"

    @property
    def rows(self) -> Path:
        """JSON: {"labels": [...], "captions": [...], "origins": [...]}: text or null, a list of texts, text."""
        return self.folder / f"{self.split}.json"


class ImageSet(Dataset[np.ndarray]):
    """Map-style data set of images [S, S, 3] uint8; lazy, memory-mapped, cheap to send to data loading processes."""

    def __init__(
        self,
        cfg: ImageDataConfig,
        split: Literal["train", "eval"] = "train",
        read: Read = records,
        also_read: Sequence[str] = (),
    ) -> None:
        """`read` gives the images of a source, `also_read` names files that it reads besides these."""
        self.cfg = cfg
        self.split = split
        self.read = read
        self.also_read = tuple(also_read)
        self._folder: Path | None = None  # set on first use, then fixed, even if the source's files change
        self._pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.pixels[index]

    @property
    def pixels(self) -> np.ndarray:
        """[N, S, S, 3] uint8, a read-only view of the cache file."""
        if self._pixels is None:
            self._pixels = self._open()
        return self._pixels

    @property
    def labels(self) -> list[str | None]:
        """[N] the label of each image, None where it has none."""
        return self._rows()["labels"]

    @property
    def captions(self) -> list[list[str]]:
        """[N] the captions of each image; none where `read` gives none."""
        return self._rows()["captions"]

    @property
    def origins(self) -> list[str]:
        """[N] the origin of each image, e.g. "train.parquet:17"."""
        return self._rows()["origins"]

    def origin(self, index: int) -> str:
        """The origin of image `index`."""
        return self.origins[index]

    @property
    def key(self) -> str:
        """Equal for sets of the same images in the same order, of both splits together."""
        return self._keyed_folder().name

    @property
    def counts(self) -> dict[str, int]:
        """Images kept, mended and dropped while the set was made (both splits), by reason."""
        self._open()
        return json.loads((self._keyed_folder() / "counts.json").read_text(encoding="utf-8"))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}

    def _rows(self) -> dict[str, list]:
        self._open()
        return json.loads(_Files(self._keyed_folder(), self.split).rows.read_text(encoding="utf-8"))

    def _keyed_folder(self) -> Path:
        if self._folder is None:
            key = hashlib.blake2b(json.dumps(source_key(self.cfg, self.also_read)).encode(), digest_size=16).hexdigest()
            self._folder = cache_dir() / "images" / key
        return self._folder

    def _open(self) -> np.ndarray:
        """Map the cache file, building it first if needed."""
        folder = self._keyed_folder()
        size = self.cfg.size
        with cache_lock(folder, "image"):
            if not (folder / "counts.json").exists():
                build(folder, self.cfg, self.read)
            return np.memmap(_Files(folder, self.split).pixels, np.uint8, "r").reshape(-1, size, size, 3)


def train_and_eval(cfg: ImageDataConfig) -> tuple[ImageSet, ImageSet]:
    """Images to train on and images held out; nothing is read before one of them is used."""
    return ImageSet(cfg, "train"), ImageSet(cfg, "eval")


def build(folder: Path, cfg: ImageDataConfig, read: Read = records) -> None:
    """Decode the source into `folder`. Raises UserError if a split stays empty."""
    counts = Counts()
    rows: dict[str, list[Record]] = {split: [] for split in SPLITS}
    with replaced_folder(folder) as temporary:
        with quiet(), (temporary / "train.u8").open("wb") as train, (temporary / "eval.u8").open("wb") as held_out:
            for image, record, split in _split_images(cfg, read, counts):
                (train if split == "train" else held_out).write(image.tobytes())
                rows[split].append(record)
        for split in SPLITS:
            if not rows[split]:
                raise _nothing_in(split, cfg, counts)
            found = {
                "labels": [None if row.label is None else str(row.label) for row in rows[split]],
                "captions": [row.captions for row in rows[split]],
                "origins": [row.origin for row in rows[split]],
            }
            text = json.dumps(found)
            _Files(temporary, split).rows.write_text(text, encoding="utf-8")
        (temporary / "counts.json").write_text(json.dumps(counts, ensure_ascii=False), encoding="utf-8")


def _split_images(cfg: ImageDataConfig, read: Read, counts: Counts) -> Iterator[tuple[np.ndarray, Record, str]]:
    """Every usable image with its record (now without the image) and its split."""
    for image, record in _decoded(cfg.size, read(cfg, cfg.source, counts), counts, cfg.images):
        held_out = cfg.eval_source is None and is_held_out(image, cfg.eval_fraction)
        yield image, record, "eval" if held_out else "train"
    if cfg.eval_source is not None:
        for image, record in _decoded(cfg.size, read(cfg, cfg.eval_source, counts), counts, limit=0):
            yield image, record, "eval"


def _decoded(pixels: int, stream: Iterator[Record], counts: Counts, limit: int) -> Iterator[tuple[np.ndarray, Record]]:
    """The first `limit` usable images (0 = all), in their order."""

    def usable() -> Iterator[tuple[np.ndarray, Record]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while chunk := list(islice(stream, CHUNK)):
                each = [Counts() for _ in chunk]  # added in order afterwards, so that `first` is the first
                images = pool.map(lambda row, c: decode(row.value, pixels, row.origin, c), chunk, each)
                for image, record, reasons in zip(images, chunk, each, strict=True):
                    for reason in reasons:
                        counts.add(reason, record.origin)
                    if image is not None:
                        yield image, record._replace(value=None)

    for image, record in islice(usable(), limit or None):
        counts.add(KEPT, record.origin)
        yield image, record


def is_held_out(image: np.ndarray, eval_fraction: float) -> bool:
    """Whether the hash of the decoded pixels falls in the held-out share: copies of an image are on the same side."""
    return in_share(image.tobytes(), eval_fraction)


def _nothing_in(split: str, cfg: ImageDataConfig, counts: Counts) -> UserError:
    if not counts[KEPT]:
        return nothing_usable(cfg.source, "image", counts)
    if split == "eval":
        return UserError(
            f"data.source {cfg.source} has too few images: data.eval_fraction={cfg.eval_fraction} holds none of them "
            "out; raise it (0.2), give more images or a data.eval_source"
        )
    return UserError(f"data.source {cfg.source}: nothing is left to train on ({dict(counts)})")


def source_key(cfg: ImageDataConfig, also_read: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that determines the pixels, as JSON values: settings, and the version of files or code.

    Files are identified by name, size and time of change, the scenes world by its code, a hub data set by its name
    only: when it changes on the hub, delete the cache.
    """
    key: dict[str, Any] = {"format": FORMAT, **cfg.model_dump(exclude=NOT_OF_IMAGES)}
    for source in filter(None, (cfg.source, cfg.eval_source)):
        if source.strip() == WORLD:
            from openjepa.data.worlds import scenes

            key |= {"images": cfg.generated_images, "world": code_version(scenes)}
        else:
            key[f"files of {source}"] = file_versions(image_files(source) or ())
    if also_read:
        key["also"] = file_versions(file for file in map(Path, also_read) if file.exists())
    return key


def load_images(inputs: Sequence[Any], pixels: int) -> np.ndarray:
    """Anything `decode` reads as [B, pixels, pixels, 3] uint8. Raises UserError naming the first that is no image."""
    images = []
    for number, value in enumerate(inputs):
        counts = Counts()
        with quiet():
            image = decode(value, pixels, "", counts)
        if image is None:
            shown = value if isinstance(value, str | Path) else f"number {number}"
            raise UserError(f"input {shown}: {next(iter(counts))}; give a path, bytes, a Pillow image or a uint8 array")
        images.append(image)
    return np.stack(images)


def raw_pixels(inputs: Sequence[Any], pixels: int) -> np.ndarray:
    """[N, 3 * side * side] float32 in [0, 1]: the baseline without training.

    Images above 32 pixels are averaged over squares of 2, 3, ... pixels to at most 32: probes on more features take
    minutes and do no better.
    """
    images = load_images(inputs, pixels)
    factor = -(-pixels // WIDEST_RAW)
    side = pixels // factor
    whole = images[:, : side * factor, : side * factor].reshape(len(images), side, factor, side, factor, 3)
    return whole.mean((2, 4), dtype=np.float32).reshape(len(images), -1) / 255
