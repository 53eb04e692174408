"""Parse the numbers of written answers, and compare two answers.

Accepted: a sign (also the Unicode minus), thousands separated by commas, spaces or as in LaTeX (9{,}500, 9\\,500),
decimals after a point, a dollar sign or LaTeX's dollars around it, a per cent sign, a full stop after it. Ambiguous
forms are not: "1,5" and "1.234,56" are no numbers here, and "007" may be a code.
"""

from __future__ import annotations

import re

# one kind of separator within a number, and groups of three digits: "1,234,567", not "1,23" nor "1,234 567"
THOUSANDS = r"(?:,|\{,\}|,\\!|\\[,; ]|~|[ \u00a0\u2009\u202f])"
NUMBER = re.compile(
    rf"""
    \$?                                               # LaTeX's mathematics, or dollars
    (?P<sign>[-+\u2212]?) (?:\\?\$)? (?P<inner_sign>[-+\u2212]?)
    (?:
        (?P<groups>[1-9]\d{{0,2}} (?P<gap>{THOUSANDS}) \d{{3}} (?:(?P=gap)\d{{3}})*)
      | (?P<whole>0|[1-9]\d*)
      | (?=\.\d)                                      # ".5"
    )
    (?:\.(?P<decimals>\d+))?
    (?:\ ?\\?%)?                                      # 50% equals 50
    (?:\.\$?|\$\.?)?                                  # a full stop within or after the mathematics
    """,
    re.VERBOSE | re.ASCII,
)


def plain_number(text: str) -> str | None:
    """`text` as a number in plain digits ("-1234.5", without trailing zeros); None if it is anything else."""
    found = NUMBER.fullmatch(text.strip())
    if found is None or (found["sign"] and found["inner_sign"]):
        return None
    digits = re.sub(r"\D", "", found["groups"]) if found["groups"] else found["whole"] or "0"
    decimals = (found["decimals"] or "").rstrip("0")
    value = f"{digits}.{decimals}" if decimals else digits
    negative = (found["sign"] or found["inner_sign"]) in ("-", "\u2212") and value != "0"
    return f"-{value}" if negative else value


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are the same text, or the same number however it is written."""
    number = plain_number(first)
    return first.strip() == second.strip() if number is None else number == plain_number(second)
