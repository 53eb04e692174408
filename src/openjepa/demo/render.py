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

CSS = """
.oj { font-size: 15px; line-height: 1.45; color: var(--body-text-color); overflow-wrap: anywhere; }
.oj h1 { font-size: 24px; font-weight: 650; margin: 8px 0 0; color: var(--body-text-color); }
.oj h3 { font-size: 15px; font-weight: 600; margin: 18px 0 6px; color: var(--body-text-color); }
.oj h3:first-child { margin-top: 0; }
.oj p { margin: 4px 0; color: var(--body-text-color); }
.oj .quiet { opacity: 0.75; font-size: 13px; }
.oj .big { font-size: 22px; font-weight: 600; margin: 2px 0 4px; }
.oj .say { border-left: 3px solid var(--color-accent); padding: 2px 0 2px 10px; margin: 4px 0; }
.oj .error { border: 1px solid #d32f2f; border-left-width: 5px; border-radius: 6px;
  padding: 10px 12px; }
.oj .wide { overflow-x: auto; }
.oj table { border-collapse: collapse; width: 100%; margin: 0; border: 0; }
.oj tr { border: 0; }
.oj th, .oj td { text-align: left; vertical-align: top; padding: 5px 8px 5px 0; border: 0;
  border-bottom: 1px solid var(--border-color-primary); background: none; color: var(--body-text-color); }
.oj th { font-weight: 500; font-size: 13px; }
.oj .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.oj .matrix td, .oj .matrix th { text-align: center; min-width: 58px; padding: 6px 4px; overflow-wrap: normal; }
.oj .matrix th:first-child { width: 1%; min-width: 24px; vertical-align: middle; }
.oj .matrix small { display: block; color: inherit; opacity: 0.75; }
.oj .mark { display: inline-block; border: 1px solid var(--color-accent); border-radius: 9px; padding: 0 7px;
  margin-right: 6px; font-size: 12px; }
.oj .gone { background: var(--body-text-color); color: var(--background-fill-primary); border-radius: 3px;
  padding: 0 4px; }
.oj .scale { position: relative; display: block; width: 130px; height: 10px; margin-top: 6px; border-radius: 5px;
  background: var(--border-color-primary); }
.oj .scale i { position: absolute; top: 0; height: 10px; background: var(--body-text-color-subdued); opacity: 0.55;
  border-radius: 5px; }
.oj .scale b { position: absolute; top: -2px; width: 6px; height: 14px; margin-left: -3px; border-radius: 3px;
  background: var(--color-accent); }
@media (max-width: 640px) { .oj .drawn { display: none; } .oj { font-size: 14px; } }
"""

SCALE = (
    '<p class="quiet drawn">The scale runs from -1 to 1; its grey part is the mean of unrelated texts with two '
    "standard deviations on either side.</p>"
)


def heading(name: str, recipe: str, step: int) -> str:
    """The name, recipe and step of the run."""
    return _page(
        f'<h1>{_text(name)}</h1><p class="quiet">{_text(recipe)} at step {step}, served by OpenJEPA on this machine</p>'
    )


def waiting() -> str:
    """The placeholder of an answer."""
    return _page('<p class="quiet">The answer appears here.</p>')


def error(message: str) -> str:
    """The error in an input, and its fix."""
    return _page(f'<div class="error" role="alert"><b>Please change the input:</b> {_text(message)}</div>')


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
        _chance(answer.chance),
        _note(answer.note),
        "<h3>Nearest held-out texts</h3>",
        SCALE,
    ]
    for number, text, found in zip(numbered, answer.texts, answer.neighbours, strict=True):
        parts += [f'<p class="say">{number}. {_text(text)}</p>', _matches(found, answer.chance)]
    return _page(*parts)


def hidden_sentence(answer: HiddenAnswer) -> str:
    """The paragraph as the run read it, decoded latents, and both lists of sentences."""
    visible = " ".join(
        '<span class="gone">hidden</span>' if number == answer.hidden else _text(sentence)
        for number, sentence in enumerate(answer.sentences)
    )
    return _page(
        "<h3>What the run read</h3>",
        f"<p>{visible}</p>",
        _note(answer.note),
        *_decoded(answer.decoded, "the hidden sentence's own latent"),
        "<h3>Rank of the hidden sentence</h3>",
        f"<p>Rank <b>{answer.rank}</b> of {len(answer.sentences)} in the paragraph, "
        f"<b>{answer.rank_overall}</b> of {answer.candidates} with those of held-out documents (1 = nearest).</p>",
        "<h3>The paragraph's own sentences, nearest first</h3>",
        _matches(answer.own, answer.chance),
        SCALE,
        "<h3>Nearest sentences of held-out documents</h3>",
        _matches(answer.elsewhere, answer.chance),
        _chance(answer.chance),
    )


def question(answer: QuestionAnswer) -> str:
    """The answer, where it comes from, and the nearest known ones."""
    source = "nearest known answer" if answer.decoded.missing else "decoded from the predicted latent"
    right = ""
    if answer.true is not None:
        rank = f"rank {answer.rank} of {answer.candidates} known answers (1 = nearest)"
        right = f"<p>Right answer: <b>{_text(answer.true)}</b>, {rank}</p>"
    return _page(
        f"<h3>Answer, {source}</h3>",
        f'<p class="big">{_text(answer.answer) or "(an empty text)"}</p>',
        _note(answer.note),
        f'<p class="quiet">Verdict of this run: {_text(answer.verdict)}. {_choice(answer)}</p>',
        right,
        *([_missing(answer.decoded)] if answer.decoded.missing else []),
        "<h3>Nearest known answers</h3>",
        _matches(answer.nearest, answer.chance),
        SCALE,
        _chance(answer.chance),
    )


def _choice(answer: QuestionAnswer) -> str:
    """The number of possible answers, in one sentence."""
    if answer.decoded.missing:
        return f"It chose among {answer.candidates} known answers and can give no other."
    return f"It can write any text; {answer.candidates} answers are known."


def _page(*parts: str) -> str:
    return f'<div class="oj">{"".join(parts)}</div>'


def _text(text: str) -> str:
    return html.escape(text)


def _note(note: str) -> str:
    return f"<p><b>{_text(note)}</b></p>" if note else ""


def _chance(chance: Chance) -> str:
    return (
        f'<p class="quiet">For comparison: {_text(chance.pairs)}, mean {chance.mean:.3f}, standard deviation '
        f"{chance.std:.3f}. z = standard deviations above that mean.</p>"
    )


def _matches(found: Sequence[Match], chance: Chance) -> str:
    rows = "".join(
        f"<tr><td>{_mark(match)}{_text(beginning(match.text))}</td>"
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
    return f'<span class="mark">{_text(match.mark)}</span>' if match.mark else ""


def _scale(cosine: float, chance: Chance) -> str:
    """The cosine as a mark on [-1, 1], above the band of mean +- 2 standard deviations of unrelated texts."""
    low, high = _percent(chance.mean - 2 * chance.std), _percent(chance.mean + 2 * chance.std)
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
        f'<p class="quiet">the predicted latent</p><p class="say">{_text(decoded.predicted) or "(an empty text)"}</p>',
        f'<p class="quiet">{target}</p><p class="say">{_text(decoded.target) or "(an empty text)"}</p>',
    ]


def _missing(decoded: Decoded) -> str:
    return f'<p class="quiet">Nothing is decoded: {_text(decoded.missing)}</p>'
