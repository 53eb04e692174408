"""Texts that a user gives, as rows of token ids that an encoder can read: whole where they fit, else in windows.

An encoder reads at most `max_len` tokens at once. A longer text becomes several rows ("windows") that follow one
another without overlap, and its embedding is the mean of theirs, weighted by their tokens: nothing of a text is left
out unless the caller requests it (`long="cut"` reads only the first window). `ReadingReport` counts what was read,
what was not, and what the tokenizer does not know, for warnings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.embedding import Embedding, EncoderInputs
from openjepa.core.errors import ReadingWarning, UserError
from openjepa.data.text.sentences import SentencesConfig
from openjepa.data.tokenizers.choice import TextTokenizer
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens

LongTexts = Literal["windows", "cut"]
Windows = Callable[[Sequence[str]], list[list[np.ndarray]]]


@dataclass(frozen=True)
class TextInputs:
    """How a recipe reads texts for embedding. The recipe gives `windows` and `collate`; both are pure."""

    tokenizer: TextTokenizer
    max_len: int  # tokens of a row, special ones included
    windows: (
        Windows  # N texts -> for each its rows [L_i] int32 with special tokens, L_i <= max_len; none if it is empty
    )
    collate: Callable[[Sequence[np.ndarray]], Batch]  # rows -> batch with nothing hidden
    blank: np.ndarray  # [L] int32, the row that stands for a text without a token
    sentences: SentencesConfig | None = None  # how a text is split, if each sentence ends in [SEP]; None = running text
    unit_length: bool = False  # whether vectors have length 1, so that the mean of windows is scaled to it
    prompts: Mapping[str, str] = field(default_factory=dict)  # by name, what may stand before a text
    default_prompt: str | None = None  # the name of the one that does
    synthetic_world: bool = False  # whether the tokenizer was trained only on generated texts

    def __call__(self, texts: Sequence[str]) -> Batch:
        """A batch of one row per text: of a long text, its first window."""
        return self.collate([windows[0] if windows else self.blank for windows in self.rows_of(texts)])

    def with_prompt(self, name: str | None) -> TextInputs:
        """The same with another prompt before every text; None = none. Raises UserError for an unknown name."""
        if name is not None and name not in self.prompts:
            known = ", ".join(self.prompts) or "none: it started from no sentence-transformers model with prompts"
            raise UserError(f"this run has no prompt {name!r}; it has {known}")
        return replace(self, default_prompt=name)

    def rows_of(self, texts: Sequence[str]) -> list[list[np.ndarray]]:
        """`windows` of the texts behind the default prompt; an empty text stays empty."""
        prompt = self.prompts[self.default_prompt] if self.default_prompt is not None else ""
        return self.windows([prompt + text if text.strip() else text for text in texts] if prompt else texts)

    def content(self, row: np.ndarray) -> np.ndarray:
        """The ids [L] of a row that stand for text."""
        return row[~np.isin(row, self.tokenizer.special_ids)]


def running_text(
    tokenizer: TextTokenizer, max_len: int, collate: Callable[[Sequence[np.ndarray]], Batch]
) -> TextInputs:
    """Read texts in windows of as many tokens as fit, wherever the cut falls."""
    room = max(1, max_len - len(tokenizer.prefix) - len(tokenizer.suffix))

    def windows(texts: Sequence[str]) -> list[list[np.ndarray]]:
        contents = tokenizer.encode_content([text.strip() for text in texts])  # as training reads them
        return [[tokenizer.wrap(part) for part in parts_of(content, room)] for content in contents]

    return TextInputs(tokenizer, max_len, windows, collate, tokenizer.wrap(tokenizer.blank))


def parts_of(content: np.ndarray, room: int) -> list[np.ndarray]:
    """Token ids [L] in pieces of at most `room`; none if there are no ids."""
    return [content[start : start + room] for start in range(0, len(content), room)]


class HasTokens(Protocol):
    """A batch of token rows."""

    @property
    def ids(self) -> Tensor: ...  # [B, T] int64

    @property
    def valid(self) -> Tensor: ...  # [B, T] bool, False on padding


def text_embedding(inputs: TextInputs) -> Embedding:
    """The mean over a text's tokens of the student's last-layer latents, with bidirectional attention."""
    return Embedding(inputs, whole_rows)


def whole_rows(batch: HasTokens) -> EncoderInputs:
    """All tokens of each row, without padding, as text encoders read them."""
    return EncoderInputs((batch.ids, batch.valid), batch.valid)


@dataclass
class ReadingReport:
    """Counts of what was read of all texts embedded so far."""

    inputs: TextInputs
    long: LongTexts = "windows"
    texts: int = 0
    empty: int = 0  # texts without a token: their vector is zero
    long_texts: int = 0  # texts of more than one window
    tokens: int = 0  # of all texts, special ones not counted
    tokens_left_out: int = 0
    unknown: UnknownTokens = field(init=False)

    def __post_init__(self) -> None:
        self.unknown = UnknownTokens(self.inputs.tokenizer)

    def add(self, windows: Sequence[np.ndarray]) -> list[tuple[np.ndarray, int]]:
        """Count a text of these windows [L_i]; return those to read, each with its number of content tokens."""
        self.texts += 1
        self.empty += not windows
        content = [self.inputs.content(row) for row in windows]
        self.tokens += sum(map(len, content))
        self.long_texts += len(windows) > 1
        read = 1 if self.long == "cut" else len(windows)
        self.tokens_left_out += sum(map(len, content[read:]))
        self.unknown.add(content[:read])
        return [(row, len(part)) for row, part in zip(windows[:read], content[:read], strict=True)]

    @property
    def counted(self) -> dict[str, int]:
        """The counts alone, which `add_counted` takes: those of several reports add up."""
        return {
            "texts": self.texts,
            "empty": self.empty,
            "long_texts": self.long_texts,
            "tokens": self.tokens,
            "tokens_left_out": self.tokens_left_out,
            "known_or_not": self.unknown.tokens,
            "unknown": self.unknown.unknown,
        }

    def add_counted(self, counted: Mapping[str, int]) -> None:
        """Add what another report has `counted`."""
        self.texts += counted["texts"]
        self.empty += counted["empty"]
        self.long_texts += counted["long_texts"]
        self.tokens += counted["tokens"]
        self.tokens_left_out += counted["tokens_left_out"]
        self.unknown.tokens += counted["known_or_not"]
        self.unknown.unknown += counted["unknown"]

    def warn(self) -> None:
        """Issue `sentences` as warnings."""
        for sentence in self.sentences():
            warnings.warn(sentence, ReadingWarning, stacklevel=3)

    def sentences(self) -> list[str]:
        """Warnings, one sentence each; none if every text was read whole and its words are known."""
        found = []
        if self.empty:
            found.append(f"{self.empty} of {self.texts} texts are empty: their vectors are zero")
        if self.tokens_left_out:
            found.append(
                f"{self.long_texts} of {self.texts} texts are longer than {self.inputs.max_len} tokens and were cut: "
                f"{100 * self.tokens_left_out / self.tokens:.1f} % of all tokens were left out; long='windows' (--long "
                "windows) reads them whole"
            )
        unknown = self.unknown.sentence(self.inputs.synthetic_world)
        return found if unknown is None else [*found, unknown]

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {
            "texts": self.texts,
            "empty": self.empty,
            "long": self.long,
            "long_texts": self.long_texts,
            "max_len": self.inputs.max_len,
            "tokens": self.tokens,
            "tokens_left_out": self.tokens_left_out,
            "unknown_share": self.unknown.share,
        }
