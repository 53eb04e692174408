"""Reproducible subsampling: items are chosen by their content, not by position."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import TypeVar

from openjepa.core.seeding import seed_for

T = TypeVar("T")


def drawn(items: Iterable[T], limit: int, content: Callable[[T], str]) -> list[T]:
    """At most `limit` (0 = all) items, in the order given: those whose content has the smallest hashes.

    A random draw that more items, or another order, change as little as possible. Holds `limit` items in memory.
    """
    if not limit:
        return list(items)
    numbered = ((seed_for(0, "drawn", content(item)), number, item) for number, item in enumerate(items))
    chosen = heapq.nsmallest(limit, numbered, key=lambda entry: entry[:2])
    return [item for _, _, item in sorted(chosen, key=lambda entry: entry[1])]
