"""Vectors of the sentences of documents by a frozen encoder, each sentence read alone; computed once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openjepa.core.compute import cpu_multiplies_bf16, device_of
from openjepa.core.sizes import round_up
from openjepa.models.sentence_head import embedded, in_bf16

PAD_TO = 8  # tokens


class SentenceLatents(nn.Module):
    """Sentences of documents to vectors of mean square 1, [N, D] float32, without gradient.

    A document's sentences are encoded together, whatever else is in the batch, so that a vector never depends on what
    it was encoded with. They are kept in memory by the document's tokens.

    Args:
        encoder: reads tokens; its own head, or the mean of its states, makes the vector.
        prefix: token ids before every text, which a row has only once.
        cached: most sentences that are kept.
    """

    def __init__(self, encoder: Any, prefix: np.ndarray, cached: int) -> None:
        super().__init__()
        self._encoders = [encoder]  # in a list: its weights belong to the method
        self.prefix = torch.from_numpy(np.asarray(prefix, dtype=np.int64))
        self._cached = cached
        self._count = 0
        self._kept: dict[bytes, Tensor] = {}
        head = getattr(encoder, "head", None)
        widths = [] if head is None else [module.out_features for module in head.maps if isinstance(module, nn.Linear)]
        self.dim: int = widths[-1] if widths else encoder.dim

    @torch.no_grad()
    def forward(self, ids: Tensor, segment: Tensor, document: Tensor) -> Tensor:
        """Rows of tokens [B, T], the number of each token's sentence [B, T], -1 outside of sentences, and the document
        of each row [B], those of one document together -> [N, D]."""
        found = []
        for rows in _runs(document):
            sentences = [*self._sentences(ids[rows].cpu(), segment[rows].cpu())]
            key = hashlib.blake2b(repr([len(s) for s in sentences]).encode(), digest_size=16)
            key.update(torch.cat(sentences).numpy().tobytes())
            found.append(self._of_document(key.digest(), sentences))
        return torch.cat(found).to(ids.device)

    def _sentences(self, ids: Tensor, segment: Tensor) -> Iterator[Tensor]:
        """The tokens of each sentence, every one behind the prefix."""
        for row, number in zip(ids, segment, strict=True):
            content = row[number >= 0]
            counts = number[number >= 0].unique_consecutive(return_counts=True)[1].tolist()
            first, *others = content.split(counts)
            yield first
            yield from (torch.cat([self.prefix, sentence]) for sentence in others)

    def _of_document(self, key: bytes, sentences: list[Tensor]) -> Tensor:
        vectors = self._kept.get(key)
        if vectors is None:
            vectors = self._encoded(sentences)
            if self._count + len(vectors) <= self._cached:
                self._count += len(vectors)
                self._kept[key] = vectors
        return vectors

    def _encoded(self, sentences: list[Tensor]) -> Tensor:
        """Sentences [L_i] -> [S, D] on the CPU."""
        encoder, is_cast = self._encoder()
        device = device_of(encoder)
        lengths = torch.tensor([*map(len, sentences)])
        width = round_up(int(lengths.max()), PAD_TO)
        ids = torch.stack([nn.functional.pad(sentence, (0, width - len(sentence))) for sentence in sentences])  # [S, T]
        valid = torch.arange(width) < lengths[:, None]  # [S, T]
        with torch.autocast(device.type, enabled=not is_cast and torch.is_autocast_enabled(device.type)):
            vectors = embedded(encoder, ids.to(device), valid.to(device)).float().cpu()  # [S, D]
        return vectors * (vectors.shape[1] ** 0.5 / vectors.norm(dim=1, keepdim=True).clamp(min=1e-6))

    def _encoder(self) -> tuple[Any, bool]:
        """The encoder, or under autocast on a CPU with matrix units a copy of it whose weights are bfloat16."""
        encoder = self._encoders[0]
        if device_of(encoder).type != "cpu" or not torch.is_autocast_enabled("cpu") or not cpu_multiplies_bf16():
            return encoder, False
        if len(self._encoders) == 1:  # made at the first use, when the weights are those of the run
            self._encoders.append(in_bf16(encoder))
        return self._encoders[1], True


def _runs(document: Tensor) -> Iterator[slice]:
    """Where each run of equal numbers [B] stands."""
    start = 0
    for count in document.unique_consecutive(return_counts=True)[1].tolist():
        yield slice(start, start + count)
        start += count
