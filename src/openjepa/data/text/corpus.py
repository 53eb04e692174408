"""Tokenised corpora: tokenised once, stored in Arrow, memory-mapped from then on.

Making a `TokenizedCorpus` is cheap. The first `len()`, `[i]` or `.lengths` reads the source once, tokenises both
the training and the held-out documents on all cores, and writes them under `cache_dir()/tokens/<key>/`; the key
depends on everything that could change a token. The folder is written atomically. A `RowMaker` makes rows of a
document; longer documents become consecutive rows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from openjepa.data.loading.cache import cache_dir, cache_lock
from openjepa.data.text.rows import RowMaker
from openjepa.data.text.sources import DataConfig, source_key
from openjepa.data.text.token_cache import TOKENS, UNKNOWN, build
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens

FORMAT = 5  # of the cache; raise it when rows are cut or stored differently


@dataclass(frozen=True)
class TokenRow:
    """One row of a corpus."""

    ids: np.ndarray  # [L] int32, read-only view of the cache file
    special: np.ndarray  # [L] bool, True where the tokenizer added a token
    document: int  # number of the document within its split; rows of one document are neighbours


@dataclass(frozen=True)
class _Part:
    """One record batch of the cache file as numpy views."""

    ids: np.ndarray  # [tokens] int32
    offsets: np.ndarray  # [rows + 1] int32
    documents: np.ndarray  # [rows] int32


class TokenizedCorpus(Dataset[TokenRow]):
    """Map-style data set of `TokenRow`s; lazy, memory-mapped, cheap to send to data loading processes."""

    def __init__(self, cfg: DataConfig, maker: RowMaker, split: Literal["train", "eval"] = "train") -> None:
        self.cfg = cfg
        self.maker = maker
        self.split = split
        self._folder: Path | None = None  # set on first use, then fixed, even if the source's files change
        self._close()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> TokenRow:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        part, row = self._locate(index)
        ids = part.ids[part.offsets[row] : part.offsets[row + 1]]
        return TokenRow(ids, self.maker.special(ids), int(part.documents[row]))

    def training_view(self, row: TokenRow, generator: torch.Generator) -> TokenRow:
        """The view of the row in training, see `ViewsConfig`."""
        return viewed(self.maker, row, generator)

    @property
    def lengths(self) -> np.ndarray:
        """[N] int32, tokens of each row, specials included."""
        self._open()
        return self._lengths

    @property
    def counts(self) -> dict[str, int]:
        """Documents and rows kept, mended and dropped while the corpus was made (both splits), by reason."""
        return json.loads((self._open() / "counts.json").read_text(encoding="utf-8"))

    @property
    def unknown(self) -> UnknownTokens:
        """Count of the training tokens that the tokenizer does not know, whatever the split of this corpus."""
        counts = self.counts
        return UnknownTokens(self.maker.tokenizer, counts[TOKENS], counts[UNKNOWN])

    def origin(self, index: int) -> str:
        """The origin of row `index`, e.g. "corpus.jsonl:17"."""
        self._open()
        return self._table["id"][index].as_py()

    @property
    def labels(self) -> list[str | None]:
        """[N] the label of each row's document, None where it has none."""
        self._open()
        return self._table["label"].to_pylist()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_table", "_parts", "_starts", "_lengths"):
            state.pop(name)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._close()

    def _close(self) -> None:
        self._table: Any = None
        self._parts: list[_Part] = []
        self._starts = np.zeros(0, dtype=np.int64)
        self._lengths = np.zeros(0, dtype=np.int32)

    def _locate(self, index: int) -> tuple[_Part, int]:
        index = index % len(self._lengths)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[number], index - int(self._starts[number])

    def _keyed_folder(self) -> Path:
        key = {"format": FORMAT, "data": source_key(self.cfg), "rows": self.maker.fingerprint}
        return cache_dir() / "tokens" / hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()

    def _open(self) -> Path:
        """Map the cache file, building it first if needed; return its folder."""
        if self._folder is None:
            self._folder = self._keyed_folder()
        if self._table is not None:
            return self._folder
        with cache_lock(self._folder, "token"):
            table = self._map_or_build(self._folder)
        for batch in table.to_batches():
            lists = batch.column("ids")
            self._parts.append(
                _Part(lists.values.to_numpy(), lists.offsets.to_numpy(), batch.column("document").to_numpy())
            )
        sizes = [len(part.documents) for part in self._parts]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._lengths = np.concatenate([np.diff(part.offsets) for part in self._parts]).astype(np.int32)
        self._table = table
        return self._folder

    def _map_or_build(self, folder: Path) -> pa.Table:
        try:
            return _map(folder / f"{self.split}.arrow")
        except (OSError, pa.ArrowException):  # not made yet, or damaged on disk
            shutil.rmtree(folder, ignore_errors=True)
        build(folder, self.cfg, self.maker)
        return _map(folder / f"{self.split}.arrow")


def viewed(maker: RowMaker, row: TokenRow, generator: torch.Generator) -> TokenRow:
    """The view of the row in training, by `maker`."""
    ids = maker.view(row.ids, generator)
    return row if ids is row.ids else TokenRow(ids, maker.special(ids), row.document)


def pad(sequences: Sequence[np.ndarray], fill: int, width: int = 0) -> Tensor:
    """[L_i] arrays -> [B, max L or `width`, the larger] int64 (bool arrays -> bool), `fill` after the end of each."""
    longest = max(width, *(len(sequence) for sequence in sequences))
    is_bool = sequences[0].dtype == np.bool_
    padded = np.full((len(sequences), longest), fill, dtype=np.bool_ if is_bool else np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(padded)


def pad_rows(rows: Sequence[np.ndarray], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids of each row [L_i] -> ids [B, T] int64, and valid [B, T] bool."""
    ids = pad(rows, pad_id)
    return ids, up_to(torch.tensor([len(row) for row in rows]), ids.shape[1])


def up_to(lengths: Tensor, width: int) -> Tensor:
    """[B] -> [B, width] bool, True on the first `lengths` positions."""
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]


def _map(file: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
