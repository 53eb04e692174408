"""Split a text into sentences: character spans into the original text, so that labels and tokens can be aligned.

Every splitter, built in or not, only gives the offsets at which sentences begin. The pieces between these, trimmed of
white space, are the sentences. Whatever a splitter does, sentences are therefore in order, do not overlap, and together
hold every character that is not white space. Very short pieces then join a neighbour, and pieces too long for an
encoder are cut at clause marks.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.core.locate import Wanted, named_function
from openjepa.data.text.sentence_spans import Span, fitted, rule_spans, spans_from
from openjepa.data.text.transforms import ViewsConfig

Splitter = Callable[[str], list[Span]]


class SentencesConfig(BaseConfig):
    """How texts are split into sentences, and how these are changed in training."""

    splitter: str = "rules"
    """rules (built in, English), pysbd (slow; pip install pysbd), or package.module:function (text -> sentences)"""
    min_chars: int = Field(5, ge=1)
    """shorter sentences join a neighbour; 1 = none do"""
    max_chars: int = Field(600, ge=8)
    """longer sentences are cut: after a clause mark, else at white space, else anywhere"""
    passages: int = Field(1, ge=1)
    """passages in one row: each as many sentences as the encoder reads at once, all predicted from all of them"""
    views: ViewsConfig = ViewsConfig()

    @model_validator(mode="after")
    def _cuts_leave_enough(self) -> Self:
        if 2 * self.min_chars > self.max_chars:
            raise ValueError(
                f"max_chars={self.max_chars} must be at least twice min_chars={self.min_chars}, or no cut leaves enough"
            )
        return self


def split_sentences(text: str, config: SentencesConfig) -> list[Span]:
    """Spans (start, end) of the sentences of `text`, in order and without overlap; [] for nothing but white space.

    No span is longer than `max_chars`. One shorter than `min_chars` is the whole text, or what trimming left of a cut.
    Raises UserError if the splitter is unknown or returns what is not in the text.
    """
    return fitted(text, named_splitter(config.splitter)(text), config.min_chars, config.max_chars)


WANTED = Wanted(
    ("text",),
    "its sentences, or their spans (start, end), as a list",
    lambda found, text: isinstance(found, Iterable) and not isinstance(found, str),
)


@functools.cache
def named_splitter(name: str) -> Splitter:
    """The splitter behind "rules", "pysbd" or "package.module:function". Raises UserError.

    A user's function takes the text and returns the sentences as strings or as spans (start, end), in order. What
    it leaves out between two sentences stays with the one before.
    """
    if name == "rules":
        return rule_spans
    known = {"rules": rule_spans, "pysbd": _load_pysbd}
    split = _load_pysbd() if name == "pysbd" else named_function("sentence splitter", name, known, WANTED)
    return lambda text: spans_from(text, _starts(text, split(text), name))


def _load_pysbd() -> Callable[[str], list[str]]:
    """Sentence Boundary Disambiguation for English (Sadvilkar and Neumann 2020), a port of Pragmatic Segmenter."""
    try:
        pysbd = importlib.import_module("pysbd")
    except ModuleNotFoundError:
        raise UserError("splitter=pysbd needs the package: pip install pysbd; or use splitter=rules") from None
    return pysbd.Segmenter(language="en", clean=False).segment


def _starts(text: str, sentences: Sequence[Any], name: str) -> list[int]:
    """Offsets in `text` of the strings or spans that a splitter returned."""
    starts: list[int] = []
    last = 0
    for sentence in sentences:
        if isinstance(sentence, str):
            words = sentence.strip()
            start = text.find(words, last)
            end = start + len(words)
        else:
            start, end = sentence
        if not last <= start <= end <= len(text):
            raise UserError(
                f"splitter {name!r} returned {str(sentence)[:60]!r}, which is not in the text after character "
                f"{last} of {len(text)}; it must return parts of the text, unchanged and in order, or their spans"
            )
        starts.append(start)
        last = end
    return starts
