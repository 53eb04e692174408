"""Tables for a terminal: what does not fit is folded, never cut, so that no width hides a number.

rich's own columns end a cell that does not fit in "…", headers and figures included. All tables are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def folding_table(
    words: Sequence[str],
    figures: Sequence[str] = (),
    remarks: Sequence[str] = (),
    *,
    title: str | None = None,
    caption: str | None = None,
    rule: bool = True,
) -> Table:
    """An empty table with columns of words, then of figures (at the right of their columns), then of words again.

    `rule` underlines the header, for two columns of width.
    """
    from rich import box
    from rich.table import Table

    style = box.SIMPLE_HEAD if rule else None
    table = Table(title=title, caption=caption, box=style, padding=(0, 1, 0, 0), pad_edge=False)
    for names, justify in ((words, "left"), (figures, "right"), (remarks, "left")):
        for name in names:
            table.add_column(name, justify=justify, overflow="fold")
    return table
