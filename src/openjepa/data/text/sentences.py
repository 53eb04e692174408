"""Split a text into sentences: character spans into the original text, so that labels and tokens can be aligned.

Every splitter, built in or not, only gives the offsets at which sentences begin. The pieces between these, trimmed of
white space, are the sentences. Whatever a splitter does, sentences are therefore in order, do not overlap, and together
hold every character that is not white space. Very short pieces then join a neighbour, and pieces too long for an
encoder are cut at clause marks.
"""

from __future__ import annotations

import functools
import importlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.core.locate import named_function
from openjepa.data.text.sentence_rules import rule_starts
from openjepa.data.text.transforms import ViewsConfig

Span = tuple[int, int]  # text[start:end]
Splitter = Callable[[str], list[Span]]

CLAUSE_END = re.compile(r"""[;:,—–)\]，；：、]["'”’]?(?=\s)|[，；：、—–]|\s(?=[—–]\s)""")


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
    spans = _join_short(named_splitter(config.splitter)(text), config.min_chars)
    return [piece for span in spans for piece in _cut_long(text, span, config)]


@functools.cache
def named_splitter(name: str) -> Splitter:
    """The splitter behind "rules", "pysbd" or "package.module:function". Raises UserError.

    A user's function takes the text and returns the sentences as strings or as spans (start, end), in order. What
    it leaves out between two sentences stays with the one before.
    """
    if name == "rules":
        return _rule_spans
    known = {"rules": _rule_spans, "pysbd": _load_pysbd}
    split = _load_pysbd() if name == "pysbd" else named_function("sentence splitter", name, known)
    return lambda text: _spans_from(text, _starts(text, split(text), name))


def _rule_spans(text: str) -> list[Span]:
    return _spans_from(text, rule_starts(text))


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


def _spans_from(text: str, starts: Sequence[int]) -> list[Span]:
    """The pieces that begin at `starts` (ascending), trimmed; pieces of white space are dropped."""
    spans: list[Span] = []
    for start, end in zip([0, *starts[1:]], [*starts[1:], len(text)], strict=True) if starts else [(0, len(text))]:
        piece = text[start:end]
        words = piece.strip()
        if words:
            start += len(piece) - len(piece.lstrip())
            spans.append((start, start + len(words)))
    return spans


def _join_short(spans: list[Span], min_chars: int) -> list[Span]:
    """Pieces of at least `min_chars` characters, if there are as many: a short one joins its nearer neighbour.

    At equal distance it joins the one that follows: "No. We will not." and "1. Mix the eggs." belong together.
    """
    joined: list[Span] = []
    for i, (start, end) in enumerate(spans):
        short = end - start < min_chars
        gap_after = spans[i + 1][0] - end if i + 1 < len(spans) else math.inf
        last_is_short = bool(joined) and joined[-1][1] - joined[-1][0] < min_chars
        if last_is_short or (joined and short and start - joined[-1][1] < gap_after):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    if len(joined) > 1 and joined[-1][1] - joined[-1][0] < min_chars:  # nothing followed that it could join
        joined[-2:] = [(joined[-2][0], joined[-1][1])]
    return joined


def _cut_long(text: str, span: Span, config: SentencesConfig) -> list[Span]:
    """The span in pieces of at most `max_chars`: each cut falls in the second half of what a piece may hold."""
    first, end = span
    starts = [first]
    while end - starts[-1] > config.max_chars:
        most = min(config.max_chars, end - starts[-1] - config.min_chars)
        starts.append(_best_cut(text, starts[-1] + most // 2, starts[-1] + most))
    if len(starts) == 1:
        return [span]
    pieces = _spans_from(text[first:end], [start - first for start in starts])
    return [(first + start, first + stop) for start, stop in pieces]


def _best_cut(text: str, low: int, high: int) -> int:
    """The last offset in (low, high] after a clause mark, else at white space, else `high`."""
    clause = space = 0
    for found in CLAUSE_END.finditer(text, low, min(high + 1, len(text))):
        clause = found.end() if low < found.end() <= high else clause
    if not clause:
        space = max((i for i in range(low + 1, high + 1) if text[i].isspace()), default=0)
    return clause or space or high
