"""How documents become rows of token ids, each at most `max_len` long: running text, or whole sentences.

The row maker is part of a corpus's identity (`fingerprint`), so a cache never mixes rows of two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch

from openjepa.core.errors import ConfigError
from openjepa.data.files.readers import Counts
from openjepa.data.text.inputs import parts_of
from openjepa.data.text.sentences import SentencesConfig, split_sentences
from openjepa.data.text.sources import Document
from openjepa.data.text.transforms import ViewsConfig, build_view
from openjepa.data.tokenizers.choice import TextTokenizer

MIN_TOKENS = 4  # of a row, without what the tokenizer adds
TOO_SHORT = f"document of fewer than {MIN_TOKENS} tokens"  # reason why a document gives no row
ONE_SENTENCE = "document of one sentence"  # likewise
MIN_SENTENCE = 2  # tokens; shorter pieces of a sentence that had to be cut are left out


class RowMaker(Protocol):
    """Makes the rows of a corpus; pure, cheap to send to data loading processes."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the rows."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for row makers that make equal rows."""
        ...

    def rows(self, documents: Sequence[Document], counts: Counts) -> list[list[np.ndarray]]:
        """For each document its rows, [L] int32 with special tokens; none where it is too short, which is counted."""
        ...

    def special(self, ids: np.ndarray) -> np.ndarray:
        """[L] bool, True where a row of these ids [L] holds a token that the tokenizer added."""
        ...

    def view(self, ids: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """The view of a row [L] in training, no longer than it; `ids` itself if unchanged."""
        ...


@dataclass(frozen=True)
class TextRows:
    """Running text: a document longer than a row continues in the next one, wherever the cut falls.

    Raises ConfigError if `max_len` leaves no room for text.
    """

    tokenizer: TextTokenizer
    max_len: int

    def __post_init__(self) -> None:
        room(self.tokenizer, self.max_len, MIN_TOKENS)

    @property
    def fingerprint(self) -> str:
        return _digest(["text", self.tokenizer.fingerprint, self.max_len, MIN_TOKENS])

    def rows(self, documents: Sequence[Document], counts: Counts) -> list[list[np.ndarray]]:
        size = room(self.tokenizer, self.max_len, MIN_TOKENS)
        contents = self.tokenizer.encode_content([document.text for document in documents])
        rows = []
        for document, content in zip(documents, contents, strict=True):
            pieces = [content[start : start + size] for start in range(0, len(content), size)]
            if len(content) < MIN_TOKENS:
                counts.add(TOO_SHORT, document.id)
                pieces = []
            elif len(pieces[-1]) < MIN_TOKENS:
                counts.add(f"tail of fewer than {MIN_TOKENS} tokens", document.id)
                pieces.pop()
            rows.append([self.tokenizer.wrap(piece) for piece in pieces])
        return rows

    def special(self, ids: np.ndarray) -> np.ndarray:
        return self.tokenizer.special_mask(len(ids))

    def view(self, ids: np.ndarray, generator: torch.Generator) -> np.ndarray:
        return ids


@dataclass(frozen=True)
class SentenceRows:
    """Whole sentences, each ended by [SEP], as many as `sentences.passages` passages hold and never fewer than two.

    A passage is what an encoder reads at once: at most `max_len` tokens, two sentences at least. A sentence longer than
    half a passage is cut into several. Documents of one sentence have nothing to predict it from; they are left out
    and counted. In training, `sentences.views` may change the sentences of a row. Raises ConfigError if `max_len`
    leaves no room for two sentences.
    """

    tokenizer: TextTokenizer
    sentences: SentencesConfig
    max_len: int

    def __post_init__(self) -> None:
        room(self.tokenizer, self.max_len, 2 * (MIN_TOKENS + 1))

    @property
    def fingerprint(self) -> str:
        splitting = self.sentences.model_dump(exclude={"views"})  # applied after the cache, so not part of the key
        return _digest(["sentences", self.tokenizer.fingerprint, splitting, self.max_len])

    def rows(self, documents: Sequence[Document], counts: Counts) -> list[list[np.ndarray]]:
        pieces = [self.split(document.text) for document in documents]
        contents = iter(self.tokenizer.encode_content([*chain(*pieces)]))
        rows = []
        for document, split in zip(documents, pieces, strict=True):
            sentences = self.fit([content for _, content in zip(split, contents)])  # noqa: B905 - takes its share
            packed = self.pack(sentences)
            if len(sentences) < 2:
                counts.add(ONE_SENTENCE, document.id)
            elif sum(map(len, packed)) < len(sentences):
                counts.add("last sentence without room beside another", document.id)
            together = range(0, len(packed), self.sentences.passages)
            rows.append([self.join([*chain(*packed[i : i + self.sentences.passages])]) for i in together])
        return rows

    def passages(self, ids: np.ndarray) -> list[np.ndarray]:
        """Split a row [L] into passages [L_i] of at most `max_len` tokens, two sentences at least in each.

        The row itself if it fits; a prefix of the tokenizer then stands before each passage.
        """
        if len(ids) <= self.max_len:
            return [ids]
        content = ids[len(self.tokenizer.prefix) :]
        ends = np.flatnonzero(content == self.tokenizer.sep_id) + 1
        return [self.join(passage) for passage in self.pack([s[:-1] for s in np.split(content, ends[:-1])])]

    def whole(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Join consecutive rows of a document [L_i] into one, however long."""
        return np.concatenate([rows[0], *(row[len(self.tokenizer.prefix) :] for row in rows[1:])])

    def split(self, text: str) -> list[str]:
        """The sentences of a text."""
        return [text[start:end] for start, end in split_sentences(text, self.sentences)]

    def windows(self, texts: Sequence[str]) -> list[list[np.ndarray]]:
        """For each text, the rows [L_i] that hold all of it: one if it fits, else several of whole sentences.

        A sentence that is longer than a row is cut into several. Unlike training rows, none is left out, and a row may
        hold a single sentence. None for a text without a token.
        """
        pieces = [self.split(text) or [text] for text in texts]
        contents = iter(self.tokenizer.encode_content([*chain(*pieces)]))
        size = self.max_len - len(self.tokenizer.prefix)
        rows = []
        for split in pieces:
            sentences = [
                part
                for _, content in zip(split, contents)  # noqa: B905 - takes its share
                for part in parts_of(content, size - 1)
            ]
            rows.append([self.join(window) for window in _as_many_as_fit(sentences, size)])
        return rows

    def fit(self, sentences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Sentences [L_i] of any length -> pieces that leave room for a second one in a row; tiny ones left out."""
        longest = (self.max_len - len(self.tokenizer.prefix)) // 2 - 1
        pieces = [s[start : start + longest] for s in sentences for start in range(0, len(s), longest)]
        return [piece for piece in pieces if len(piece) >= MIN_SENTENCE]

    def join(self, sentences: Sequence[np.ndarray]) -> np.ndarray:
        """Sentences [L_i] -> one text: the tokenizer's prefix, and [SEP] after each sentence."""
        end = np.array([self.tokenizer.sep_id], dtype=np.int32)
        return np.concatenate([self.tokenizer.prefix, *(part for s in sentences for part in (s, end))])

    def pack(self, sentences: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Group sentences [L_i] that `fit`, in order, into passages of as many as fit and two at least.

        A single last sentence gets a neighbour from the passage before it, and so on back to a passage of three. If all
        are pairs there is none, and the last sentence is left out.
        """
        rows = _as_many_as_fit(sentences, self.max_len - len(self.tokenizer.prefix))
        if rows and len(rows[-1]) == 1:  # only the last row can have one: any two sentences fit
            if all(len(row) == 2 for row in rows[:-1]):
                rows.pop()
            else:
                for row, before in zip(rows[:0:-1], rows[-2::-1], strict=True):
                    if len(row) == 1:
                        row.insert(0, before.pop())
        return rows

    def special(self, ids: np.ndarray) -> np.ndarray:
        mask = ids == self.tokenizer.sep_id
        mask[: len(self.tokenizer.prefix)] = True
        return mask

    def view(self, ids: np.ndarray, generator: torch.Generator) -> np.ndarray:
        if self.sentences.views == ViewsConfig():
            return ids
        prefix, content = np.split(ids, [len(self.tokenizer.prefix)])
        ends = np.flatnonzero(content == self.tokenizer.sep_id) + 1
        return np.concatenate([prefix, *build_view(self.sentences.views)(np.split(content, ends[:-1]), generator)])


def _as_many_as_fit(sentences: Sequence[np.ndarray], size: int) -> list[list[np.ndarray]]:
    """Sentences [L_i] in order, in groups whose tokens, with one [SEP] a sentence, are at most `size`."""
    groups: list[list[np.ndarray]] = []
    used = size
    for sentence in sentences:
        if used + len(sentence) + 1 > size:
            groups.append([])
            used = 0
        groups[-1].append(sentence)
        used += len(sentence) + 1
    return groups


def room(tokenizer: TextTokenizer, max_len: int, needed: int) -> int:
    """Tokens of text that fit into a row. Raises ConfigError if that is less than needed."""
    size = max_len - len(tokenizer.prefix) - len(tokenizer.suffix)
    if size < needed:
        raise ConfigError(f"max_len={max_len} leaves {size} tokens for text; at least {needed} are needed")
    return size


def _digest(parts: list) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
