"""One tokenizer for all text recipes, on the `tokenizers` library: trained on the corpus or a pretrained one.

Trained tokenizers have five special tokens with fixed ids ([PAD] 0 ... [MASK] 4) and add none of them to a text.
Pretrained ones keep their vocabulary and wrap a text by their post-processor ([CLS] ... [SEP]); what it adds is marked
as special. Text is data: a "[MASK]" written in a document is split into characters, never read as the special token.

`training` trains one, `files` reads a pretrained one, `choice` chooses one for a run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator
from tokenizers import Tokenizer, models

from openjepa.core.atomic import replaced_file
from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.core.vocabulary import Vocabulary

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # set explicitly: forking loader workers then gives no warning

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0-4 of every tokenizer trained here
PAD_NAMES = ("[PAD]", "<pad>", "<|pad|>")
UNK_NAMES = ("[UNK]", "<unk>")
SEP_NAMES = ("[SEP]", "</s>", "<|sep|>")
MASK_NAMES = ("[MASK]", "<mask>", "<|mask|>")
OWN_KINDS = ("wordpiece", "bpe", "bytes")


class TokenizerConfig(BaseConfig):
    """Section `tokenizer` of a text recipe."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": OWN_KINDS}
    FIRST = ("kind", "vocab_size")

    kind: str | None = None
    """wordpiece or bpe (trained on the corpus), bytes, or the file, folder or hub name of a pretrained tokenizer
    (tokenizer.json, vocab.json + merges.txt, encoder.json + vocab.bpe, a .tiktoken file, vocab.txt); unset = that of
    the encoder's name, else wordpiece"""
    vocab_size: int = Field(8000, ge=300)
    """tokens of a trained vocabulary, special ones included; pretrained ones and bytes have their own"""
    lowercase: bool = True
    """fold case: "The" is "the"; pretrained tokenizers decide for themselves"""
    strip_accents: bool = False
    """fold the accents of Latin letters: "e" for "é"; marks of other scripts always stay; pretrained tokenizers decide
    for themselves"""

    @field_validator("kind")
    @classmethod
    def _not_misspelt(cls, kind: str | None) -> str | None:
        near = difflib.get_close_matches(kind or "", OWN_KINDS, n=1, cutoff=0.7)
        if kind is not None and near and kind not in OWN_KINDS and not os.path.exists(kind):
            raise ValueError(f"unknown kind; did you mean {near[0]!r}?")
        return kind


class TextTokenizer:
    """Text to ids and back. [PAD], [MASK] and [SEP] are appended to a vocabulary that lacks them (GPT-2's).

    Then `vocab_size` is larger than the pretrained embedding, which `models.pretrained` resizes.
    `special_ids` are the tokens that stand for no text: all special ones but [UNK].
    """

    def __init__(self, backend: Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.pad_id = _named_token(backend, PAD_NAMES)
        self.mask_id = _named_token(backend, MASK_NAMES)
        self.sep_id = _named_token(backend, SEP_NAMES)
        wrapped = np.array(backend.encode("a").special_tokens_mask, dtype=bool)
        ids = np.array(backend.encode("a").ids, dtype=np.int32)
        content = np.flatnonzero(~wrapped)
        self.prefix = ids[: content[0]]  # [P] int32, what goes before a text
        self.suffix = ids[content[-1] + 1 :]  # [S] int32, what goes after it
        added = backend.get_added_tokens_decoder().items()
        self.special_ids = tuple(sorted(i for i, token in added if token.special and token.content not in UNK_NAMES))
        vocab = backend.get_vocab(with_added_tokens=True)
        self.unknown_id = _unknown_id(backend)  # what stands for text outside the vocabulary; None = there is none
        unknown = next((vocab[name] for name in UNK_NAMES if name in vocab), self.pad_id)
        self.blank = np.array([unknown], dtype=np.int32)  # what stands for a text without content
        self.vocab_size = max(vocab.values()) + 1
        backend.encode_special_tokens = True  # special tokens written out in a text are plain text
        self.backend = backend

    def grown(self, name: str) -> tuple[TextTokenizer, int]:
        """A tokenizer that also has the special token `name`, at the end of the vocabulary if it is new; and its id."""
        backend = Tokenizer.from_str(self.backend.to_str())
        number = _named_token(backend, (name,))
        return TextTokenizer(backend), number

    def encode_content(self, texts: Sequence[str]) -> list[np.ndarray]:
        """[L] int32 for each text, nothing added. Runs on all cores."""
        return [
            np.array(encoding.ids, dtype=np.int32)
            for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def wrap(self, content: np.ndarray) -> np.ndarray:
        """[L] -> [P + L + S] with the tokenizer's own special tokens around the content."""
        return np.concatenate([self.prefix, content, self.suffix])

    def special_mask(self, length: int) -> np.ndarray:
        """[length] bool, True where `wrap` put the special tokens of a wrapped text of this length."""
        mask = np.zeros(length, dtype=bool)
        mask[: len(self.prefix)] = True
        mask[length - len(self.suffix) :] = True
        return mask

    def encode(self, texts: Sequence[str], max_len: int | None = None) -> list[np.ndarray]:
        """[L] int32 for each text, specials included; with `max_len`, its end is cut so that L <= max_len.

        A text without content (an empty one) becomes one [UNK] token (or [PAD], if there is none), so that L >= 1.
        """
        room = None if max_len is None else max(1, max_len - len(self.prefix) - len(self.suffix))
        return [self.wrap(content[:room] if len(content) else self.blank) for content in self.encode_content(texts)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; special tokens are left out."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (self.backend.to_str(),)  # the library's pickling loses `encode_special_tokens`

    @property
    def vocabulary(self) -> Vocabulary:
        """Its size and padding id, for networks."""
        return Vocabulary(self.vocab_size, self.pad_id)

    @property
    def description(self) -> str:
        """Kind and size in a few words: "WordPiece, 8,000 tokens"."""
        return f"{type(self.backend.model).__name__}, {self.vocab_size:,} tokens"

    @property
    def fingerprint(self) -> str:
        """Equal for equal tokenizers."""
        return hashlib.blake2b(self.backend.to_str().encode(), digest_size=16).hexdigest()

    def save(self, path: Path) -> None:
        """Write `path` (a tokenizer.json) by renaming a temporary file, so a reader never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as temporary:
            self.backend.save(str(temporary))

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """A tokenizer.json, or a folder that holds one. Raises UserError if there is none or it is damaged."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"no tokenizer at {file}")
        try:
            return cls(Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{file} is not a tokenizer of the tokenizers library ({error})") from error


def _revive(state: str) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_str(state))


def _named_token(backend: Tokenizer, names: Sequence[str]) -> int:
    """Id of the first name that the vocabulary has; if it has none, the first name is added at its end."""
    known = backend.get_vocab(with_added_tokens=True)
    name = next((name for name in names if name in known), names[0])
    backend.add_special_tokens([name])  # marks it as special; a new id only if it is new
    return backend.get_vocab(with_added_tokens=True)[name]


def _unknown_id(backend: Tokenizer) -> int | None:
    """Id of the token for unknown text; None if every text is known, as with bytes."""
    model: Any = backend.model
    if isinstance(model, models.Unigram):  # the library does not expose the id
        return json.loads(backend.to_str())["model"]["unk_id"]
    return None if model.unk_token is None else backend.token_to_id(model.unk_token)
