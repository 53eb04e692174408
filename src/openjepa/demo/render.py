"""Answers as HTML: tables of cosines, drawn on a scale with those of unrelated texts.

Everything that a user or a corpus wrote is escaped. Colours stand beside numbers or words that say the same, and come
from the page's theme, so light and dark both work; narrow screens drop the drawn scale and keep the numbers.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from openjepa.demo.answers import Chance, Decoded, Match, beginning
from openjepa.demo.hidden_sentence import HiddenAnswer
from openjepa.demo.questions import QuestionAnswer
from openjepa.demo.similar_texts import SimilarAnswer

SCALE = (
    '<p class="quiet drawn">The scale runs from -1 to 1; its grey part is the mean of unrelated texts with two '
    "standard deviations on either side.</p>"
)


def heading(name: str, recipe: str, step: int | None) -> str:
    """The name, recipe and step of a run; None = it has no checkpoint yet."""
    at = "no checkpoint yet" if step is None else f"at step {step}"
    return page(f'<h1>{escaped(name)}</h1><p class="quiet">{escaped(recipe)}, {at}, served by OpenJEPA</p>')


def nothing_yet() -> str:
    """In place of the panels of a run without a checkpoint."""
    return page("<p>No checkpoint yet. When there is one, a reload of this page shows more.</p>")


def cannot_open(message: str) -> str:
    """Why the panels of a run cannot be shown."""
    return page(f'<div class="error" role="alert">{escaped(message)}</div>')


def nothing_to_ask(recipe: str) -> str:
    """In place of the panels of a run whose rows no panel shows."""
    rows = "neither texts nor questions nor images in a form that this page knows"
    return page(f"<p>{escaped(recipe)} reads {rows}, so the page shows its training only.</p>")


def waiting() -> str:
    """The placeholder of an answer."""
    return page('<p class="quiet">The answer appears here.</p>')


def error(message: str) -> str:
    """The error in an input, and its fix."""
    return page(f'<div class="error" role="alert"><b>Please change the input:</b> {escaped(message)}</div>')


def similar_texts(answer: SimilarAnswer) -> str:
    """The matrix of all pairs, and the neighbours of each text."""
    numbered = range(1, len(answer.texts) + 1)
    head = "".join(f"<th>{number}</th>" for number in numbered)
    lines = "".join(
        f"<tr><th>{number}</th>{''.join(_cell(c, z, answer.chance) for c, z in zip(cosines, zs, strict=True))}</tr>"
        for number, cosines, zs in zip(numbered, answer.cosine, answer.z, strict=True)
    )
    parts = [
        "<h3>Cosine of each pair</h3>",
        f'<div class="wide"><table class="matrix"><tr><th></th>{head}</tr>{lines}</table></div>',
        chance_line(answer.chance),
        note_line(answer.note),
        "<h3>Nearest held-out texts</h3>",
        SCALE,
    ]
    for number, text, found in zip(numbered, answer.texts, answer.neighbours, strict=True):
        parts += [f'<p class="say">{number}. {escaped(text)}</p>', _matches(found, answer.chance)]
    return page(*parts)


def hidden_sentence(answer: HiddenAnswer) -> str:
    """The paragraph as the run read it, decoded latents, and both lists of sentences."""
    visible = " ".join(
        '<span class="gone">hidden</span>' if number == answer.hidden else escaped(sentence)
        for number, sentence in enumerate(answer.sentences)
    )
    return page(
        "<h3>What the run read</h3>",
        f"<p>{visible}</p>",
        note_line(answer.note),
        *_decoded(answer.decoded, "the hidden sentence's own latent"),
        "<h3>Rank of the hidden sentence</h3>",
        f"<p>Rank <b>{answer.rank}</b> of {len(answer.sentences)} in the paragraph, "
        f"<b>{answer.rank_overall}</b> of {answer.candidates} with those of held-out documents (1 = nearest).</p>",
        "<h3>The paragraph's own sentences, nearest first</h3>",
        _matches(answer.own, answer.chance),
        SCALE,
        "<h3>Nearest sentences of held-out documents</h3>",
        _matches(answer.elsewhere, answer.chance),
        chance_line(answer.chance),
    )


def question(answer: QuestionAnswer) -> str:
    """The answer, where it comes from, and the nearest known ones."""
    source = "nearest known answer" if answer.decoded.missing else "decoded from the predicted latent"
    right = ""
    if answer.true is not None:
        rank = f"rank {answer.rank} of {answer.candidates} known answers (1 = nearest)"
        right = f"<p>Right answer: <b>{escaped(answer.true)}</b>, {rank}</p>"
    return page(
        f"<h3>Answer, {source}</h3>",
        f'<p class="big">{escaped(answer.answer) or "(an empty text)"}</p>',
        note_line(answer.note),
        f'<p class="quiet">Verdict of this run: {escaped(answer.verdict)}. {_choice(answer)}</p>',
        right,
        *([_missing(answer.decoded)] if answer.decoded.missing else []),
        "<h3>Nearest known answers</h3>",
        _matches(answer.nearest, answer.chance),
        SCALE,
        chance_line(answer.chance),
    )


def _choice(answer: QuestionAnswer) -> str:
    """The number of possible answers, in one sentence."""
    if answer.decoded.missing:
        return f"It chose among {answer.candidates} known answers and can give no other."
    return f"It can write any text; {answer.candidates} answers are known."


def page(*parts: str) -> str:
    """Parts of HTML in the style of this page."""
    return f'<div class="oj">{"".join(parts)}</div>'


def escaped(text: str) -> str:
    """What a user, a corpus or a file wrote, as HTML."""
    return html.escape(text)


def note_line(note: str) -> str:
    """What a reader has to know of the input, or ""."""
    return f"<p><b>{escaped(note)}</b></p>" if note else ""


def chance_line(chance: Chance) -> str:
    """The cosines of unrelated inputs, without which a cosine means nothing."""
    return (
        f'<p class="quiet">For comparison: {escaped(chance.pairs)}, mean {chance.mean:.3f}, standard deviation '
        f"{chance.std:.3f}. z = standard deviations above that mean.</p>"
    )


def _matches(found: Sequence[Match], chance: Chance) -> str:
    rows = "".join(
        f"<tr><td>{_mark(match)}{escaped(beginning(match.text))}</td>"
        f'<td class="drawn">{_scale(match.cosine, chance)}</td>'
        f'<td class="number">{match.cosine:.3f}</td><td class="number">{match.z:+.1f}</td></tr>'
        for match in found
    )
    head = (
        '<tr><th>text</th><th class="drawn">and unrelated</th><th class="number">cosine</th>'
        '<th class="number">z</th></tr>'
    )
    return f'<table class="matches">{head}{rows}</table>'


def _mark(match: Match) -> str:
    return f'<span class="mark">{escaped(match.mark)}</span>' if match.mark else ""


def _scale(cosine: float, chance: Chance) -> str:
    """The cosine as a mark on [-1, 1], above the band of mean +- 2 standard deviations of unrelated texts."""
    low = _percent(chance.mean - 2 * chance.std)
    high = _percent(chance.mean + 2 * chance.std)
    return (
        f'<span class="scale" aria-hidden="true"><i style="left:{low:.1f}%;width:{max(high - low, 1):.1f}%"></i>'
        f'<b style="left:{_percent(cosine):.1f}%"></b></span>'
    )


def _percent(cosine: float) -> float:
    return 50 * (min(1.0, max(-1.0, cosine)) + 1)


def _cell(cosine: float, z: float, chance: Chance) -> str:
    """The cell of a pair, coloured by its distance above random pairs."""
    strength = min(1.0, max(0.0, (cosine - chance.mean) / max(1 - chance.mean, 1e-6)))
    colour = f"background:color-mix(in srgb, var(--color-accent) {45 * strength:.0f}%, transparent)"
    return f'<td style="{colour}">{cosine:.3f}<small>z {z:+.1f}</small></td>'


def _decoded(decoded: Decoded, target: str) -> list[str]:
    if decoded.missing:
        return [_missing(decoded)]
    return [
        "<h3>Latents decoded by the run's readout</h3>",
        _said("the predicted latent", decoded.predicted),
        _said(target, decoded.target),
    ]


def _said(of: str, text: str) -> str:
    return f'<p class="quiet">{of}</p><p class="say">{escaped(text) or "(an empty text)"}</p>'


def _missing(decoded: Decoded) -> str:
    return f'<p class="quiet">Nothing is decoded: {escaped(decoded.missing)}</p>'
