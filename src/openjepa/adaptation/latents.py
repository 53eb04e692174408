"""The encoder's latents of documents and of their parts, kept on disk, read back in blocks of whole documents.

    documents.npy, parts.npy    [M, D], [P, D] float16 unit rows
    owner.npy                   [P] the number of each part's document
    held_out.npy, digests.npy   [M] which documents are held out; [M, 16] hashes of their words

Half precision keeps a unit row to 5e-4, far below what separates texts, and halves the space: ten million sentences of
384 dimensions take 7.7 GB.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from openjepa.adaptation.documents import Text
from openjepa.adaptation.statistics import Block
from openjepa.core.atomic import replaced_folder
from openjepa.core.errors import UserError
from openjepa.data.loading.held_out import is_held_out, word_digest
from openjepa.encoding.growing import GrowingArray
from openjepa.encoding.workers import Chunk, Pass
from openjepa.evals.features import require_finite, unit_rows

AT_ONCE = 256  # documents that are encoded together
BLOCK = 4096  # documents of a block that is read back
NAMES = ("parts", "owner", "documents", "held_out", "digests")


@dataclass(frozen=True)
class DocumentLatents:
    """Latents of M documents and of their P parts, read from disk as they are used."""

    parts: np.ndarray  # [P, D] float16 unit rows
    owner: np.ndarray  # [P] int64 ascending, the document of each part
    documents: np.ndarray  # [M, D] float16 unit rows
    held_out: np.ndarray  # [M] bool, documents that candidates are compared on
    digests: np.ndarray  # [M, 16] uint8, equal for documents of the same words

    @classmethod
    def open(cls, folder: Path) -> DocumentLatents:
        """What `encoded` has kept."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES))

    def blocks(self, held_out: bool | None = None) -> Iterator[tuple[Block, np.ndarray]]:
        """Parts of whole documents, and all documents' latents [M_b, D] from the block's first on; float32.

        `held_out` gives only those documents that are, or are not, held out.
        """
        for start in range(0, len(self.documents), BLOCK):
            end = min(start + BLOCK, len(self.documents))
            first, last = np.searchsorted(self.owner, [start, end])
            owner = self.owner[first:last]
            kept = np.ones(len(owner), bool) if held_out is None else self.held_out[owner] == held_out
            block = Block(self.parts[first:last][kept].astype(np.float32), owner[kept])
            yield block, self.documents[start:end].astype(np.float32)

    @property
    def part_counts(self) -> np.ndarray:
        """[M] parts of each document."""
        return np.bincount(self.owner, minlength=len(self.documents))


def encoded(
    source: Iterable[Text],
    encoding: AbstractContextManager[Pass],
    folder: Path,
    held_out_share: float,
    before: Path | None = None,
    on_documents: Callable[[int, int], None] | None = None,
) -> Encoding:
    """Encode documents and their parts once, into `folder`.

    Args:
        source: the documents.
        encoding: gives, as a context, what encodes chunks in order; see `encoding.workers`.
        folder: of the latents; it replaces an earlier one when it is complete.
        held_out_share: of documents that candidates are compared on.
        before: latents of other documents, which these are added to; documents of the same words are left out.
        on_documents: called with (documents, texts encoded) after each step.

    Raises UserError if there are no documents, or the encoder gives NaN.
    """
    with replaced_folder(folder) as temporary, encoding as encode:
        writer = _Writer(temporary, before, held_out_share)
        for chunk, found in encode(writer.chunks(source)):
            writer.append(chunk.about, found.vectors)
            if on_documents is not None:
                on_documents(len(chunk.about), len(chunk.texts))
        if not writer.documents:
            raise UserError("there are no documents to adapt to")
        writer.close()
    return Encoding(DocumentLatents.open(folder), writer.before, writer.left_out)


class Encoding(NamedTuple):
    """All latents, how many documents were there before, and how many of the new ones were left out as the same."""

    latents: DocumentLatents
    before: int
    left_out: int


class _Writer:
    """The files of latents while they grow, from those in `before` if there are any."""

    def __init__(self, folder: Path, before: Path | None, held_out_share: float) -> None:
        self._folder = folder
        self._held_out_share = held_out_share
        self._files: dict[str, GrowingArray] = {}
        self._known: set[bytes] = set()  # digests of the words of documents that were there before
        self.documents = self.left_out = 0
        if before is not None:
            for name in NAMES:
                shutil.copyfile(before / f"{name}.npy", folder / f"{name}.npy")
                rows = np.load(folder / f"{name}.npy", mmap_mode="r")
                self._files[name] = GrowingArray(folder / f"{name}.npy", rows.dtype.str, rows.shape[1:], len(rows))
            self._known = {row.tobytes() for row in np.load(folder / "digests.npy")}
            self.documents = self._files["documents"].rows
        self.before = self.documents

    def chunks(self, source: Iterable[Text]) -> Iterator[Chunk]:
        """New documents that are encoded together: they themselves, and then their parts."""
        incoming = iter(source)
        while chunk := list(islice(incoming, AT_ONCE)):
            new = [text for text in chunk if word_digest(text.whole) not in self._known]
            self.left_out += len(chunk) - len(new)
            if new:
                yield Chunk([*(text.whole for text in new), *(part for text in new for part in text.parts)], new)

    def append(self, texts: Sequence[Text], vectors: np.ndarray) -> None:
        """Add documents, whose vectors [N, D] come before those of their parts."""
        require_finite(vectors, "the encoder")
        rows = unit_rows(vectors)
        self._append("documents", "<f2", rows[: len(texts)])
        self._append("parts", "<f2", rows[len(texts) :])
        numbers = np.arange(self.documents, self.documents + len(texts))
        self._append("owner", "<i8", np.repeat(numbers, [len(text.parts) for text in texts]))
        self._append("held_out", "|b1", np.array([is_held_out(text.whole, self._held_out_share) for text in texts]))
        self._append("digests", "|u1", np.stack([np.frombuffer(word_digest(text.whole), np.uint8) for text in texts]))
        self.documents += len(texts)

    def _append(self, name: str, dtype: str, rows: np.ndarray) -> None:
        if name not in self._files:
            self._files[name] = GrowingArray(self._folder / f"{name}.npy", dtype, rows.shape[1:])
        self._files[name].append(rows)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
