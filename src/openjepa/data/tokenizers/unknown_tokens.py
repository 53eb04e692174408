"""How much of a text a tokenizer does not know, counted token by token.

A vocabulary of words or word pieces replaces what it lacks by [UNK]. Vectors of texts that are mostly [UNK] are nearly
equal and carry no information, so the share is counted wherever texts are tokenised. Byte-level vocabularies know every
text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from openjepa.core.errors import UserError

if TYPE_CHECKING:
    from openjepa.data.tokenizers.text_tokenizer import TextTokenizer

WORTH_SAYING = 0.05  # share of unknown tokens from which a reader should know
MOST_UNKNOWN = 0.2  # of the training corpus; training stops above it


class UnknownTokens:
    """Counts the tokens of texts and the [UNK]s among them. Special tokens ([CLS], [SEP], ...) are not counted."""

    def __init__(self, tokenizer: TextTokenizer, tokens: int = 0, unknown: int = 0) -> None:
        self.unknown_id = tokenizer.unknown_id
        self.special_ids = np.array(tokenizer.special_ids, dtype=np.int32)
        self.description = tokenizer.description
        self.tokens = tokens
        self.unknown = unknown

    def add(self, ids: Sequence[np.ndarray]) -> None:
        """Count texts, each [L] integer token ids, with or without special tokens.

        A text without content has no tokens; `TextTokenizer.encode` gives it one [UNK], which counts like any other.
        """
        if not ids:
            return
        joined = np.concatenate(ids)
        self.tokens += len(joined) - int(np.isin(joined, self.special_ids).sum())
        if self.unknown_id is not None:
            self.unknown += int((joined == self.unknown_id).sum())

    @property
    def share(self) -> float:
        """Unknown tokens among all counted, 0 to 1; 0 is best, and the value without any token."""
        return self.unknown / self.tokens if self.tokens else 0.0

    def sentence(self, synthetic_world: bool) -> str | None:
        """A warning in one sentence without a full stop; None below WORTH_SAYING.

        `synthetic_world`: the run's data came from one of OpenJEPA's synthetic worlds.
        """
        if self.share < WORTH_SAYING:
            return None
        share = f"{100 * self.share:.0f} % of these tokens are unknown to"
        if synthetic_world:
            return f"this run knows only the words of its synthetic world: {share} it"
        return f"{share} this run's tokenizer ({self.description}), which was made for other text"


def share_of_unknown_words(tokenizer: TextTokenizer, texts: Sequence[str]) -> float:
    """The share of the words of `texts`, 0 to 1, that are no token of their own but unknown or put together."""
    words = [word for text in texts for word in re.findall(r"\w+", text)]
    pieces = tokenizer.encode_content(words)
    return sum(len(ids) != 1 or ids[0] == tokenizer.unknown_id for ids in pieces) / len(words)


def require_known(training: UnknownTokens) -> None:
    """Raises UserError if more than MOST_UNKNOWN of the training data's tokens are unknown."""
    if training.share > MOST_UNKNOWN:
        raise UserError(
            f"{100 * training.share:.0f} % of the training data's tokens are unknown to its tokenizer "
            f"({training.description}); at most {100 * MOST_UNKNOWN:.0f} % may be. Raise tokenizer.vocab_size, or set "
            "tokenizer.kind=bpe, which knows every text; with pretrained weights, take an encoder for this language"
        )
