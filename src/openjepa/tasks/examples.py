"""Three texts to test whether a variation is nearer to the original than an unrelated text."""

from __future__ import annotations

from typing import NamedTuple

from openjepa.core.errors import UserError
from openjepa.data.text.sources import DataConfig, held_out_texts

SEARCHED = 200  # held-out documents searched for two that are long enough
SHORTEST = 12  # words of a document that is cut in two


class Trio(NamedTuple):
    """The texts, and what each of them is."""

    labels: tuple[str, str, str]
    texts: tuple[str, str, str]


GENERAL = Trio(  # of everyday English: what a run from a pretrained encoder should tell apart
    ("original", "variation", "unrelated"),
    (
        "The quick brown fox jumps over the lazy dog.",
        "A fast fox leaped over a dog that was asleep.",
        "The stock market fell sharply on Monday.",
    ),
)


def semantic_trio(cfg: DataConfig) -> Trio:
    """An original, a variation and an unrelated text that no run was trained on.

    The stories world makes a paraphrase. Other data have none, so the two halves of a held-out document stand in for
    original and variation, and half of another one for the unrelated text. Raises UserError if the held-out documents
    are too few or too short for that.
    """
    if cfg.source.strip() == "stories":
        from openjepa.data.worlds.stories import semantic_example

        return Trio(("original", "variation", "unrelated"), semantic_example())
    long_enough = [words for d in held_out_texts(cfg, SEARCHED) if len(words := d.text.split()) >= SHORTEST]
    if len(long_enough) < 2:
        raise UserError(f"fewer than two of the held-out documents have {SHORTEST} words to cut in two")
    (first, second), (other, _) = (_halves(words) for words in (long_enough[0], long_enough[-1]))
    return Trio(("first half", "second half", "another text"), (first, second, other))


def _halves(words: list[str]) -> tuple[str, str]:
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])
