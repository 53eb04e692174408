"""Images with captions: the data of recipes that predict an image with the help of a text.

    scenes                       the offline world, five captions an image: no file, no network
    photos/ + captions_*.json    a folder of images and COCO's annotations (Chen et al. 2015), or any in its schema
    photos/ + captions.tsv       a folder of images and a table of file names and captions (see `caption_files`)
    train.parquet  owner/name    a table or a hub data set; `data.label` names the column of captions, one or a list

Images are decoded once and kept as in `images`, with their captions. An image without a caption is left out;
so is a caption whose image is missing. Both are counted, like everything else that could not be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from openjepa.core.errors import UserError
from openjepa.data.captions.coco import SCHEMA
from openjepa.data.captions.files import TABLE, captions_in
from openjepa.data.files.readers import Counts, Record
from openjepa.data.images.dataset import ImageSet
from openjepa.data.images.decode import SUFFIXES
from openjepa.data.images.sources import WORLD, ImageDataConfig, image_files, records
from openjepa.data.text.sources import clean_text, source_kind
from openjepa.data.tokenizers.text_tokenizer import TextTokenizer
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens

TextKind = Literal["caption", "none", "shuffled"]
COUNTED_CAPTIONS = 100_000  # searched for unknown tokens
CAPTION_COLUMN = "caption"  # of a table of captions, where data.label is unset


class CaptionDataConfig(ImageDataConfig):
    """Section `data` of an image-text recipe. A plain string stands for `source`."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **ImageDataConfig.LOCATIONS,
        **dict.fromkeys(("captions", "eval_captions", "objects", "eval_objects"), ()),
    }
    FIRST = ("source", "captions", "size", "label", "images")

    captions: str | None = None
    """file of captions: COCO's schema (captions_train2017.json: images have id and file_name, annotations image_id and
    caption), or a table (.tsv, .csv, .jsonl, .parquet) of file names and captions; files are looked up in `source`"""
    column: str = "image"
    """column that holds the image (Parquet, hub) or, in a table of captions, its file name relative to `source`"""
    label: str | None = None
    """column that holds the captions, one text or a list of texts (Parquet, hub, table of captions; there unset =
    caption)"""
    eval_captions: str | None = None
    """the file of captions that belongs to `eval_source`"""
    objects: str | None = None
    """file of objects in COCO's schema (instances_train2017.json): a probe predicts the kind of the largest one"""
    eval_objects: str | None = None
    """the file of objects that belongs to `eval_source`"""

    @property
    def caption_files(self) -> list[str]:
        """Paths of those that are given."""
        return [str(Path(file).expanduser()) for file in (self.captions, self.eval_captions) if file is not None]

    @property
    def object_files(self) -> tuple[Path, Path] | None:
        """Files of objects of both splits, if given; one file for both if they share a source."""
        held_out = self.eval_objects if self.eval_source is not None else self.objects
        return None if self.objects is None or held_out is None else (Path(self.objects), Path(held_out))


class Captioned(NamedTuple):
    """An image and its captions."""

    image: np.ndarray  # [S, S, 3] uint8
    captions: Sequence[str]  # empty if the method gets no text
    latents: np.ndarray | None = None  # [N, D] of all patches, where the encoder is frozen and they are kept
    words: Sequence[np.ndarray] | None = None  # of each caption [T, E], likewise


class CaptionedImages(Dataset[Captioned]):
    """Map-style data set of images with their captions, with those of another image each, or with none.

    `shuffled` gives image i the captions of image i + N / 2: always the same ones, and true of other images, so that
    they differ from the true ones only in content.
    """

    def __init__(self, cfg: CaptionDataConfig, split: Literal["train", "eval"], text: TextKind = "caption") -> None:
        self.cfg = cfg
        self.split = split
        self.text = text
        self.images = ImageSet(cfg, split, captioned, cfg.caption_files)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Captioned:
        return Captioned(self.images[index], self.captions_of(index))

    def captions_of(self, index: int) -> Sequence[str]:
        """The captions that the method gets with image `index`."""
        caption_index = self.caption_index(index)
        return () if caption_index is None else self.captions[caption_index]

    def caption_index(self, index: int) -> int | None:
        """Number of the image whose captions the method gets with image `index`."""
        if self.text == "none":
            return None
        return (index + (len(self) // 2 if self.text == "shuffled" else 0)) % len(self)

    @cached_property
    def captions(self) -> list[list[str]]:
        """[N] the captions of each image."""
        return self.images.captions

    @property
    def counts(self) -> dict[str, int]:
        """Images and captions kept, mended and left out (both splits), by reason."""
        return self.images.counts

    def texts(self) -> Iterator[str]:
        """All captions, one after the other, to train a tokenizer on."""
        return (caption for captions in self.captions for caption in captions)

    def unknown(self, tokenizer: TextTokenizer) -> UnknownTokens:
        """Count of the tokens of the first captions that this tokenizer does not know."""
        found = UnknownTokens(tokenizer)
        found.add(tokenizer.encode_content(list(islice(self.texts(), COUNTED_CAPTIONS))))
        return found

    def with_captions(self, text: TextKind) -> CaptionedImages:
        """The same images with captions of another kind."""
        return CaptionedImages(self.cfg, self.split, text)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "captions"}


def captioned(cfg: ImageDataConfig, source: str, counts: Counts) -> Iterator[Record]:
    """Every image of one source that has a caption, undecoded, with its captions.

    Raises UserError if the source cannot be read or no setting names its captions.
    """
    assert isinstance(cfg, CaptionDataConfig)
    require_captions(cfg)
    annotations = cfg.captions if source == cfg.source else cfg.eval_captions
    kind, location = source_kind(source, WORLD)
    if kind == "world":
        found = _scenes(cfg, counts)
    elif annotations is not None:
        columns = (cfg.column, cfg.label or CAPTION_COLUMN)
        found = captions_in(Path(annotations).expanduser(), Path(location).expanduser(), columns, counts)
    else:
        if any(file.suffix.lower() in SUFFIXES for file in image_files(source) or ()):  # no table: files without a text
            raise _without_captions("data.captions" if source == cfg.source else "data.eval_captions", source)
        found = records(cfg, source, counts)
    for record in found:
        texts = tuple(_usable(record, counts))
        if texts:
            yield record._replace(label=None, captions=texts)
        else:
            counts.add("image without a caption", record.origin)


def require_captions(cfg: CaptionDataConfig) -> None:
    """Raises UserError, before any file is opened, if there is no source, or no setting names its captions."""
    if not cfg.source.strip():
        raise UserError(
            f"data.source is not set: give data.source=FOLDER (images) and data.captions=FILE: a .json in {SCHEMA}, or "
            f"{TABLE}; or data.source={WORLD} (no files needed)"
        )
    given = {"data.captions": (cfg.source, cfg.captions), "data.eval_captions": (cfg.eval_source, cfg.eval_captions)}
    for key, (source, file) in given.items():
        if source is not None and source.strip() != WORLD and file is None and cfg.label is None:
            raise _without_captions(key, source)


def _without_captions(key: str, source: str) -> UserError:
    return UserError(
        f"no setting names the captions of {source}; give {key}=FILE: a .json in {SCHEMA}, or {TABLE}; if "
        f"{source} is itself a table, data.label names its column of captions; data.source={WORLD} needs no files"
    )


def _scenes(cfg: ImageDataConfig, counts: Counts) -> Iterator[Record]:
    from openjepa.data.worlds.scenes import Scenes

    world = Scenes("train", cfg.generated_images)
    for number, record in enumerate(records(cfg, WORLD, counts)):
        yield record._replace(label=world.captions(number))


def _usable(record: Record, counts: Counts) -> Iterator[str]:
    """Clean captions of a record; what is no text or empty is counted."""
    for value in record.label if isinstance(record.label, list | tuple) else [record.label]:
        text = clean_text(value, "caption", record.origin, counts)
        if text:
            yield " ".join(text.split())
        elif text == "" and (value is not None or isinstance(record.label, list | tuple)):
            counts.add("empty caption", record.origin)
