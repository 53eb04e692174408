"""The newest verdict with its evidence, and the meaning of its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from openjepa.pages.parts.document import left_out
from openjepa.pages.run.logs import Logs

SIGNS = {"healthy": ("good", "&#10003;"), "collapsed": ("bad", "&#10007;")}  # all others are warnings
WARNING = ("risk", "!")


def verdict(logs: Logs, overrides: Sequence[str] = ()) -> str:
    """The newest health check: verdict, evidence, advice (as `overrides`), and its figures one by one."""
    if not logs.health:
        return left_out("there is no health check yet")
    now = logs.health[-1]
    start = logs.health[0]
    colour, sign = SIGNS.get(now["status"], WARNING)
    kind = f" ({escape(now['kind'])})" if now.get("kind") else ""
    best = max(logs.health, key=lambda record: record.get("score", 0))
    parts = [
        f'<div class="verdict {colour}"><p class="word"><span aria-hidden="true">{sign}</span> '
        f"{escape(now['status'])}{kind}</p>",
        f"<p>At step {now['step']}: {escape(now.get('evidence', ''))}.</p>",
        _advice(now, overrides),
        "</div>",
        f'<ul class="words">{"".join(f"<li>{line}</li>" for line in in_words(now, start))}</ul>',
        f"<p>Best health score: {best.get('score', 0):.3f} at step {best['step']} "
        "(skill x rank as a part of its cap; -1 = collapsed).</p>",
        _changes(logs),
    ]
    return "".join(parts)


def in_words(now: Mapping[str, Any], start: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each figure behind a verdict."""
    if (skill := now.get("skill")) is not None:
        of = f"Predictions explain {skill:.0%} of the targets' variance"
        yield f"<b>Skill {skill:.2f}</b>. " + (
            f"{of}; the best constant guess explains none."
            if skill > 0
            else "Predictions are no better than the best constant guess."
        )
    if (beyond := now.get("skill_position")) is not None:
        yield f"<b>Skill beyond position {beyond:.2f}</b>. The same, relative to the best prediction from the position."
    if (rank := now.get("rank")) is not None:
        cap = now.get("rank_cap", 0)
        began = f"; at step {start['step']} it was {start['rank']:.1f}" if "rank" in start else ""
        yield f"<b>Rank {rank:.1f}</b>. The embeddings use about that many of {cap:.0f} possible dimensions{began}."
    if (spread := now.get("spread")) is not None:
        yield f"<b>Spread {spread:.2g}</b>. {_spread_words(spread)}"
    if (cosine := now.get("mean_cosine")) is not None:
        yield f"<b>Mean cosine {cosine:.2f}</b>. The similarity of unrelated inputs; near 1 all have one direction."
    if now.get("scale") and start.get("scale"):
        yield f"<b>Size {now['scale'] / start['scale']:.2g} x step 0</b>. The mean norm of the embeddings."
    if (distance := now.get("teacher_distance")) is not None:
        yield f"<b>Teacher {distance:.2f} from its student</b>. 0 = equal, 1 = unrelated."


def _spread_words(spread: float) -> str:
    if spread < 0.01:
        return "Inputs hardly differ from their mean: almost one point."
    return f"{spread:.0%} of an embedding's squared length differs between inputs; the rest is the same for all."


def _advice(record: Mapping[str, Any], overrides: Sequence[str]) -> str:
    if not record.get("advice"):
        return ""
    tried = f" Settings to try: <code>{escape(' '.join(overrides))}</code>" if overrides else ""
    return f"<p><b>Advice:</b> {escape(record['advice'])}{tried}</p>"


def _changes(logs: Logs) -> str:
    """The steps at which the verdict changed."""
    changes = []
    last = None
    for record in logs.health:
        word = record["status"] + (f" ({record['kind']})" if record.get("kind") else "")
        if word != last:
            changes.append(f"{escape(word)} from step {record['step']}")
        last = word
    return f"<p>Over the run: {', '.join(changes)}.</p>"
