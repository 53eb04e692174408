"""Images with captions to batches: some patches hidden, and one caption of each image as token ids.

The hidden patches and the caption of an image are drawn from the generator of the row, the caption last: with another
text, or with none, the same patches are hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from openjepa.core.experiment import Sample
from openjepa.core.pairs import Captions
from openjepa.core.picture import Patches
from openjepa.core.seeding import generator_for
from openjepa.data.captions.dataset import Captioned, CaptionedImages
from openjepa.data.images.batches import MaskedImageCollator, MaskedImages, images_at_once
from openjepa.data.text.corpus import pad_rows
from openjepa.data.tokenizers.choice import TextTokenizer

NO_TOKENS = np.zeros(0, dtype=np.int32)


@dataclass(kw_only=True)
class CaptionedBatch(MaskedImages):
    """Images of which some patches are hidden, with a caption each. T = tokens of the longest, 0 if there is none."""

    text_ids: Tensor  # [B, T] int64
    text_valid: Tensor  # [B, T] bool, False on padding and throughout for an image without a caption
    latents: Tensor | None = None  # [B, N, D] of all patches, where they are kept; see `caption_latents`
    words: Tensor | None = None  # [B, T, E] of the caption's tokens, likewise

    @property
    def captions(self) -> Captions:
        """The captions as encoders read them."""
        return Captions(self.text_ids, self.text_valid, self.words)


@dataclass(frozen=True)
class CaptionCollator:
    """Rows of `Captioned` to a CaptionedBatch; captions are cut at `max_len` tokens."""

    images: MaskedImageCollator
    tokenizer: TextTokenizer
    max_len: int

    def __call__(self, rows: Sequence[Sample]) -> CaptionedBatch:
        masked = self.images([row._replace(sample=row.sample.image) for row in rows])
        samples: list[Captioned] = [row.sample for row in rows]
        chosen = [_one_of(sample.captions, row.generator) for sample, row in zip(samples, rows, strict=True)]
        captions = [None if k is None else row.captions[k] for row, k in zip(samples, chosen, strict=True)]
        text_ids, text_valid = self.padded(self.encode(captions))
        latents = [row.latents for row in samples if row.latents is not None]
        words = [
            torch.tensor(row.words[k], dtype=torch.float32)
            for row, k in zip(samples, chosen, strict=True)
            if row.words is not None and k is not None
        ]
        return CaptionedBatch(
            **{field.name: getattr(masked, field.name) for field in fields(masked)},
            text_ids=text_ids,
            text_valid=text_valid,
            latents=torch.from_numpy(np.stack(latents)).float() if latents else None,
            words=pad_sequence(words, batch_first=True) if words else None,
        )

    @property
    def at_once(self) -> int:
        """Images of a batch that an evaluation reads in one pass."""
        rows, columns = self.images.grid
        return images_at_once(rows * columns)

    def eval_batch(self, images: CaptionedImages, numbers: Sequence[int]) -> CaptionedBatch:
        """These images as in every evaluation: the same patches hidden, whatever the text is."""
        return self([Sample(images[i], generator_for(0, "captions", i), i) for i in numbers])

    def padded(self, ids: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """ids and valid, both [B, T]."""
        return pad_rows(ids, self.tokenizer.pad_id)

    def pictures(self, batch: CaptionedBatch) -> list[Patches]:
        """The images with their captions, for display."""
        pictures = self.images.pictures(batch)
        rows = zip(batch.text_ids, batch.text_valid, strict=True)
        texts = [self.tokenizer.decode(ids[valid].tolist()) for ids, valid in rows]
        return [replace(picture, caption=text) for picture, text in zip(pictures, texts, strict=True)]

    def encode(self, captions: Sequence[str | None]) -> list[np.ndarray]:
        """[L] int32 for each caption; L = 0 where there is none."""
        encoded = iter(self.tokenizer.encode([text for text in captions if text is not None], self.max_len))
        return [NO_TOKENS if text is None else next(encoded) for text in captions]


def _one_of(captions: Sequence[str], generator: torch.Generator) -> int | None:
    return int(torch.randint(len(captions), (), generator=generator)) if captions else None
