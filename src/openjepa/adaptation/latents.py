"""The encoder's latents of documents and of their parts, kept on disk, read back in blocks of whole documents.

    parts.npy [P, D]   owner.npy [P]   documents.npy [M, D]     float16 unit rows; the number of the document

Half precision keeps a unit row to 5e-4, far below what separates texts, and halves the space: ten million sentences of
384 dimensions take 7.7 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from openjepa.adaptation.documents import Text
from openjepa.adaptation.statistics import Block
from openjepa.core.atomic import replaced_folder
from openjepa.core.errors import UserError
from openjepa.data.loading.held_out import is_held_out
from openjepa.encoding.growing import GrowingArray
from openjepa.evals.features import require_finite, unit_rows

AT_ONCE = 256  # documents that are encoded together
BLOCK = 4096  # documents of a block that is read back
NAMES = ("parts", "owner", "documents", "held_out")
Encode = Callable[[Sequence[str]], np.ndarray]  # N texts -> [N, D]


@dataclass(frozen=True)
class DocumentLatents:
    """Latents of M documents and of their P parts, read from disk as they are used."""

    parts: np.ndarray  # [P, D] float16 unit rows
    owner: np.ndarray  # [P] int64 ascending, the document of each part
    documents: np.ndarray  # [M, D] float16 unit rows
    held_out: np.ndarray  # [M] bool, documents that candidates are compared on

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
    encode: Encode,
    folder: Path,
    held_out_share: float,
    on_documents: Callable[[int, int], None] | None = None,
) -> DocumentLatents:
    """Encode documents and their parts once, into `folder`.

    `on_documents` is called with (documents, texts encoded) after each step. Raises UserError if there are none, or the
    encoder gives NaN.
    """
    with replaced_folder(folder) as temporary:
        _encode_into(temporary, source, encode, held_out_share, on_documents)
    return DocumentLatents.open(folder)


def _encode_into(
    folder: Path,
    source: Iterable[Text],
    encode: Encode,
    held_out_share: float,
    on_documents: Callable[[int, int], None] | None,
) -> None:
    incoming = iter(source)
    owners: list[np.ndarray] = []
    held: list[bool] = []
    files: list[GrowingArray] = []  # documents and parts, from the first vectors on
    while chunk := list(islice(incoming, AT_ONCE)):
        parts = [part for text in chunk for part in text.parts]
        vectors = encode([*(text.whole for text in chunk), *parts])
        require_finite(vectors, "the encoder")
        rows = unit_rows(vectors)
        files = files or [
            GrowingArray(folder / f"{name}.npy", "<f2", rows.shape[1:]) for name in ("documents", "parts")
        ]
        for file, block in zip(files, (rows[: len(chunk)], rows[len(chunk) :]), strict=True):
            file.append(block)
        owners.append(np.repeat(np.arange(len(held), len(held) + len(chunk)), [len(text.parts) for text in chunk]))
        held += [is_held_out(text.whole, held_out_share) for text in chunk]
        if on_documents is not None:
            on_documents(len(chunk), len(rows))
    if not held:
        raise UserError("there are no documents to adapt to")
    for file in files:
        file.close()
    np.save(folder / "owner.npy", np.concatenate(owners).astype(np.int64))
    np.save(folder / "held_out.npy", np.array(held))
