"""The frame of a page, and tables and lists in it.

A page is one file that loads nothing and runs nothing. A browser holds it to that by its Content-Security-Policy: no
script, no connection, pictures only within the page, and one style sheet, which is named by its hash. So there are no
`style` attributes: what varies is a class.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from importlib import resources

DEEPEST = 36  # % of the strongest colour in a cell: the number on it stays readable


def document(title: str, sections: Sequence[str], styles: Sequence[str], refresh_s: int | None = None) -> str:
    """A whole page. `styles` are style sheets as text; with `refresh_s` a browser reloads the page that often."""
    refresh = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">'
    style = "".join(styles)
    head = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy(style)}">',
        f'<meta name="viewport" content="width=device-width">{refresh}<title>{escape(title)}</title>',
        f"<style>{style}</style></head><body>",
    ]
    return "\n".join([*head, *sections, "</body></html>\n"])


def policy(style: str) -> str:
    """The Content-Security-Policy of a page whose only style sheet is `style`."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def style_sheet(package: str, name: str) -> str:
    """The text of a style sheet that ships in `package`."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def base_styles() -> list[str]:
    """Colours and type, the parts of charts, and the strengths of `heat_cell`."""
    strengths = "".join(f".s{number} {{ --s: {number}%; }}" for number in range(DEEPEST + 1))
    return [*(style_sheet("openjepa.pages.parts", name) for name in ("base.css", "chart.css")), strengths]


def colours() -> tuple[str, str]:
    """The declarations of the colours of `base_styles`: of light pages, and of dark ones."""
    light, dark = re.findall(r":root \{(.*?)\}", style_sheet("openjepa.pages.parts", "base.css"), re.DOTALL)
    return light.replace("color-scheme: light dark;", ""), dark


def table(head: Sequence[str], rows: Sequence[Sequence[str]], label: str, kind: str = "") -> str:
    """Cells are HTML; the first of a row is its header. Wide tables scroll sideways, by keyboard as well."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    inside = f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{inside}</div>'


def breakable(label: str) -> str:
    """An arm's name, such as t_jepa+mask.ratio=0.3, which may break before each of its settings."""
    return escape(label).replace("+", "<wbr>+")


def heat_cell(shown: str, strength: float) -> str:
    """A cell's content on a background whose colour grows with `strength`, in [0, 1]."""
    return f'<span class="heat-cell s{DEEPEST * min(1.0, max(0.0, strength)):.0f}">{shown}</span>'


def details(summary: str, inside: str) -> str:
    """Content that is folded until it is opened."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def left_out(reason: str) -> str:
    """One sentence in place of a part without content."""
    return f'<p class="left-out">Left out: {escape(" ".join(reason.split()))}</p>'


def number(value: float | None, digits: int = 3) -> str:
    """A value of any size in few characters; "-" where there is none."""
    if value is None:
        return "-"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1e3 else f"{value:,.0f}"
