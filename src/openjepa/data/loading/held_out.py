"""Held-out documents: the split by hash, and the errors for a split without documents.

The hash of a document's words decides. So the split is the same on every machine, it does not change when files are
added, and two copies of a text are always on the same side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from openjepa.core.errors import UserError
from openjepa.data.loading.cache import hash_share, in_share

ENOUGH = 20  # different documents, of which some eval_fraction holds out at least one


def normalised_words(text: str) -> bytes:
    """A text's words, ignoring case and white space; equal for texts that count as copies."""
    return " ".join(text.casefold().split()).encode()


def word_digest(text: str) -> bytes:
    """A hash of a text's normalised words, in 16 bytes."""
    return hashlib.blake2b(normalised_words(text), digest_size=16).digest()


def is_held_out(text: str, eval_fraction: float) -> bool:
    """Whether the hash of the text's words, ignoring case and white space, falls in the held-out share."""
    return in_share(normalised_words(text), eval_fraction)


def nothing_held_out(
    source: str, eval_fraction: float, usable: Iterable[str], unusable: Mapping[str, int], what: str = "document"
) -> UserError:
    """The error for a source of which nothing is held out, with the cause and how to fix it.

    `usable` are the texts that could be held out; `unusable` counts the others, by reason.
    """
    total = 0
    shares: set[float] = set()
    for text in usable:
        total += 1
        shares.add(hash_share(normalised_words(text)))
    found = f"{total:,} {what}{'s' if total != 1 else ''}"
    if len(shares) < total:
        found += f", of which only {len(shares):,} {'is' if len(shares) == 1 else 'are'} different"
    others = ", ".join(f"{count:,} x {reason}" for reason, count in unusable.items() if count)
    found += f" (others cannot be used: {others})" if others else ""
    if len(shares) < ENOUGH:
        advice = f"give at least {ENOUGH} different ones"
    else:
        fraction = _above(min(shares))
        held_out = sum(share < fraction for share in shares)
        advice = f"data.eval_fraction={fraction} would hold out {held_out}; or give more {what}s"
    return UserError(f"data.source {source}: data.eval_fraction={eval_fraction} holds out none of {found}; {advice}")


def nothing_to_train_on(source: str, eval_fraction: float, total: int, what: str = "document") -> UserError:
    """The error for a source all of which is held out."""
    return UserError(
        f"data.source {source}: data.eval_fraction={eval_fraction} holds out every one of {total:,} "
        f"{what}{'s' if total != 1 else ''}; lower it, or give more {what}s"
    )


def _above(share: float) -> float:
    """A number just above a share, with few digits."""
    digits = 1 - math.floor(math.log10(share)) if share > 0 else 2
    for places in range(digits, digits + 18):
        rounded = math.ceil(share * 10**places) / 10**places
        if share < rounded < 1:
            return float(f"{rounded:.{places}f}")
    return share * 2
