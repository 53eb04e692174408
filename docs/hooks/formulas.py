"""Formulas become MathML while the site is built, so a page with formulas needs no script and no network.

Pages write LaTeX between dollars: $x$ in a line, $$x$$ on lines of its own. `pymdownx.arithmatex` finds it and
leaves it in spans and divs of the class `arithmatex`, which this hook of MkDocs replaces.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def as_mathml(found: re.Match[str]) -> str:
    """One formula. Its LaTeX is kept as the text that a screen without MathML shows."""
    tag, latex = found.group(1), html.unescape(found.group(2)).strip()
    math = convert(latex, display="block" if tag == "div" else "inline")
    named = math.replace("<math ", f'<math alttext="{html.escape(latex)}" ', 1)
    return f'<div class="formula">{named}</div>' if tag == "div" else named


def on_page_content(content: str, **_: Any) -> str:
    return FORMULA.sub(as_mathml, content)
