"""What an export is made of: an encoder, the description of its embedding, and the run's vectors to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from openjepa.core.embedding import Embedding
from openjepa.core.encoder import Encoder
from openjepa.core.errors import UserError
from openjepa.data.images.inputs import ImageInputs
from openjepa.data.text.inputs import TextInputs
from openjepa.data.tokenizers.text_tokenizer import TextTokenizer
from openjepa.models.pretrained_vision import PretrainedViT
from openjepa.models.sentence_head import SentenceHead
from openjepa.models.target import WithoutGradient

TWO_WORDS = "one two"  # a text whose row shows what stands before and after its tokens


@dataclass(frozen=True)
class Source:
    """A run as exports see it. Raises UserError where its vectors are not a pooled state of one encoder."""

    name: str  # of the run, for messages
    embedding: Embedding
    encoder: Encoder
    vectors: Callable[[Sequence[Any]], np.ndarray]  # N inputs -> [N, D] float32, texts cut at `max_len`
    query_vectors: Callable[[Sequence[Any], bool], np.ndarray]  # the same as queries; whether behind their own prompt
    held_out: Callable[[], list[str]]  # texts of the run's data that it was not trained on; may be none
    card: Callable[[str, bool], str]  # format, whether it reads texts -> the model card, without how to use the format

    def __post_init__(self) -> None:
        if self.embedding.pooling == "predicted" or self.embedding.encoder_inputs is None:
            raise UserError(
                f"{self.name} cannot be exported: its vectors are made by the predictor, not by an encoder alone; "
                "openjepa embed writes them to a file"
            )

    @property
    def reads_texts(self) -> bool:
        return isinstance(self.embedding.inputs, TextInputs)

    @property
    def texts(self) -> TextInputs:
        """How texts are read."""
        assert isinstance(self.embedding.inputs, TextInputs)
        return self.embedding.inputs

    @property
    def images(self) -> ImageInputs:
        """How images are read."""
        assert isinstance(self.embedding.inputs, ImageInputs)
        return self.embedding.inputs

    @property
    def network(self) -> Encoder:
        """The encoder, without what keeps a copy of it from being trained."""
        return self.encoder.encoder if isinstance(self.encoder, WithoutGradient) else self.encoder

    @property
    def skips_cls(self) -> bool:
        """Whether the encoder has a [CLS] position in front that is not pooled."""
        return isinstance(self.network, PretrainedViT)

    @property
    def head(self) -> SentenceHead | None:
        """Pooling, maps and prompts of the sentence-transformers model that the run started from."""
        head = getattr(self.network, "head", None)
        return head if isinstance(head, SentenceHead) else None

    @property
    def maps_queries(self) -> bool:
        """Whether queries have vectors of their own."""
        return self.head is not None and self.head.queries is not None

    @property
    def prompt(self) -> str:
        """What stands before every text."""
        return "" if self.head is None else self.head.prompt

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of texts."""
        return self.texts.tokenizer

    def row(self, text: str) -> np.ndarray:
        """[L] the token ids that the encoder reads of a text, special ones included."""
        assert self.embedding.encoder_inputs is not None
        arguments, valid = self.embedding.encoder_inputs(self.texts([text]))
        ids = arguments[0][0]
        return (ids if valid is None else ids[valid[0]]).cpu().numpy()

    @cached_property
    def wrapping(self) -> tuple[list[int], list[int]]:
        """The token ids that stand before and after a text's own. Raises UserError if a row is not so made."""
        row = self.row(TWO_WORDS).tolist()
        content = self.tokenizer.encode_content([self.prompt + TWO_WORDS])[0].tolist()
        for start in range(len(row) - len(content) + 1):
            if row[start : start + len(content)] == content:
                return row[:start], row[start + len(content) :]
        raise UserError(
            f"{self.name} cannot be exported: it does not read the tokens of a text in their order, which no plain "
            "tokenizer can repeat; openjepa embed writes its vectors to a file"
        )

    def unlike_a_plain_tokenizer(self, texts: Sequence[str]) -> list[str]:
        """Those of `texts` whose row is not the wrapped tokens of the text, as a plain tokenizer makes them."""
        before, after = self.wrapping
        room = max(1, self.max_row - len(before) - len(after))
        contents = self.tokenizer.encode_content([(self.prompt + text).strip() for text in texts])
        return [
            text
            for text, content in zip(texts, contents, strict=True)
            if self.row(text).tolist() != [*before, *content[:room].tolist(), *after]
        ]

    @cached_property
    def max_row(self) -> int:
        """Most tokens of a row, special ones included."""
        before, after = self.wrapping
        long = " ".join([TWO_WORDS] * self.texts.max_len)
        return max(len(self.row(long)), len(before) + len(after) + 1)
