"""Images with captions to batches: some patches hidden, and one caption of each image as token ids.

Which of an image's captions, and which patches, is drawn from the generator of the row, the caption last: with another
text, or with none, the very same patches are hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from openjepa.core.experiment import Row
from openjepa.data.corpus import pad
from openjepa.data.image_batches import MaskedImageCollator, MaskedImages
from openjepa.data.tokenizer import TextTokenizer

SILENCE = np.zeros(0, dtype=np.int32)


@dataclass(kw_only=True)
class CaptionedBatch(MaskedImages):
    """Images of which some patches are hidden, with a caption each. T = tokens of the longest, 0 if there is none."""

    text_ids: Tensor  # [B, T] int64
    text_valid: Tensor  # [B, T] bool, False on padding and throughout for an image without a caption


@dataclass(frozen=True)
class CaptionCollator:
    """Rows of `Captioned` to a CaptionedBatch; captions are cut at `max_len` tokens."""

    images: MaskedImageCollator
    tokenizer: TextTokenizer
    max_len: int

    def __call__(self, rows: Sequence[Row]) -> CaptionedBatch:
        masked = self.images([row._replace(sample=row.sample.image) for row in rows])
        ids = self.encode([_one_of(row.sample.captions, row.generator) for row in rows])
        lengths = torch.tensor([len(one) for one in ids])
        text_ids = pad(ids, self.tokenizer.pad_id)  # [B, T]
        return CaptionedBatch(
            **{field.name: getattr(masked, field.name) for field in fields(masked)},
            text_ids=text_ids,
            text_valid=torch.arange(text_ids.shape[1])[None, :] < lengths[:, None],
        )

    def encode(self, captions: Sequence[str | None]) -> list[np.ndarray]:
        """[L] int32 for each caption, of no token where there is none."""
        encoded = iter(self.tokenizer.encode([text for text in captions if text is not None], self.max_len))
        return [SILENCE if text is None else next(encoded) for text in captions]


def _one_of(captions: Sequence[str], generator: torch.Generator) -> str | None:
    return captions[int(torch.randint(len(captions), (), generator=generator))] if captions else None
