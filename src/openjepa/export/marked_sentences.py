"""A module for sentence-transformers that reads a text as its run did: [SEP] after each sentence.

A plain tokenizer cannot do that, so this file travels with the export, together with the rules that split a text into
sentences; `SentenceTransformer(folder, trust_remote_code=True)` loads it. It imports nothing of openjepa there.
"""

from __future__ import annotations

from typing import Any

from sentence_transformers.sentence_transformer.modules import Transformer

from openjepa.data.text.sentence_spans import fitted, rule_spans


class MarkedSentences(Transformer):
    """A transformer whose rows are sentences, each ended by [SEP]; as many whole sentences as fit."""

    def __init__(
        self, *args: Any, min_chars: int = 1, max_chars: int = 600, prefix: tuple[int, ...] = (), **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.config_keys = [*self.config_keys, "min_chars", "max_chars", "prefix"]
        self.min_chars = min_chars
        self.max_chars = max_chars
        self.prefix = list(prefix)

    def preprocess(  # ty: ignore[incompatible-method-override]
        self, inputs: Any, prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Texts -> {"input_ids", "attention_mask"} [B, T]."""
        tokenizer: Any = self.tokenizer
        rows = [self.row((prompt or "") + text) for text in inputs]
        return {**tokenizer.pad({"input_ids": rows}, return_tensors="pt"), "modality": "text"}

    def row(self, text: str) -> list[int]:
        """The token ids of a text's first sentences; of one that is longer than a row, its beginning."""
        spans = fitted(text, rule_spans(text), self.min_chars, self.max_chars) or [(0, len(text))]
        tokenizer: Any = self.tokenizer
        room = (self.max_seq_length or 0) - len(self.prefix)
        found: list[int] = []
        for start, end in spans:
            ids = tokenizer(text[start:end], add_special_tokens=False)["input_ids"]
            for part in (ids[first : first + room - 1] for first in range(0, len(ids), room - 1)):
                if len(found) + len(part) + 1 > room:
                    return self.prefix + found
                found += [*part, tokenizer.sep_token_id]
        return self.prefix + found
