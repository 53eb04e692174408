"""Spans of sentences from where they begin: trimmed, short ones joined to a neighbour, long ones cut.

This file and `sentence_rules` need nothing but Python: exports whose texts are split into sentences carry both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from openjepa.data.text.sentence_rules import rule_starts

Span = tuple[int, int]  # text[start:end]

CLAUSE_END = re.compile(r"""[;:,—–)\]，；：、]["'”’]?(?=\s)|[，；：、—–]|\s(?=[—–]\s)""")


def rule_spans(text: str) -> list[Span]:
    """The sentences of a text by the built-in rules, of any length."""
    return spans_from(text, rule_starts(text))


def fitted(text: str, spans: list[Span], min_chars: int, max_chars: int) -> list[Span]:
    """Spans of at most `max_chars` characters, in which spans shorter than `min_chars` have joined a neighbour."""
    return [piece for span in _join_short(spans, min_chars) for piece in _cut_long(text, span, min_chars, max_chars)]


def spans_from(text: str, starts: Sequence[int]) -> list[Span]:
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


def _cut_long(text: str, span: Span, min_chars: int, max_chars: int) -> list[Span]:
    """The span in pieces of at most `max_chars`: each cut falls in the second half of what a piece may hold."""
    first, end = span
    starts = [first]
    while end - starts[-1] > max_chars:
        most = min(max_chars, end - starts[-1] - min_chars)
        starts.append(_best_cut(text, starts[-1] + most // 2, starts[-1] + most))
    if len(starts) == 1:
        return [span]
    pieces = spans_from(text[first:end], [start - first for start in starts])
    return [(first + start, first + stop) for start, stop in pieces]


def _best_cut(text: str, low: int, high: int) -> int:
    """The last offset in (low, high] after a clause mark, else at white space, else `high`."""
    clause = space = 0
    for found in CLAUSE_END.finditer(text, low, min(high + 1, len(text))):
        clause = found.end() if low < found.end() <= high else clause
    if not clause:
        space = max((i for i in range(low + 1, high + 1) if text[i].isspace()), default=0)
    return clause or space or high
