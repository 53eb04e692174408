"""Captions of scenes: one of several sentence forms, filled with one of several words for each factor.

Words and forms are in `scenes_words.yaml`. A caption names the group and the other shape, and some of relation, place
and background; which words and which form is random, so a caption is no code for its scene.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

import yaml

from openjepa.data.worlds.draws import Draw, pick

_SOURCE = yaml.safe_load(
    resources.files("openjepa.data.worlds").joinpath("scenes_words.yaml").read_text(encoding="utf-8")
)
PHRASES: dict[str, tuple[tuple[str, ...], ...]] = {
    name: tuple(tuple(phrase.strip(' "') for phrase in line.split(",")) for line in lines)
    for name, lines in {**_SOURCE["factors"], "side": _SOURCE["sides"]}.items()
}
FORMS: tuple[str, ...] = tuple(_SOURCE["captions"])
SILENT = "-"  # a phrase that is left out
_SLOT = re.compile(r"\{(\w+)\}")


def caption(classes: Mapping[str, int], draw: Draw) -> str:
    """One caption of the scene with these classes, in words and form as drawn."""

    def phrase(name: str, factor: str | None = None) -> str:
        return pick(PHRASES[name][classes[factor or name]], draw)

    def fill(slot: re.Match[str]) -> str:
        match slot[1]:
            case "group":
                return _group(phrase, many=classes["count"] > 0)
            case "other":
                return _indefinite([phrase("colour", "other_colour"), phrase("shape", "other_shape")])
            case "side":
                return phrase("side", "relation")
            case name:
                return phrase(name)

    return _SLOT.sub(fill, pick(FORMS, draw))


def _group(phrase: Callable[[str], str], many: bool) -> str:
    words = [word for name in ("size", "texture", "colour") if (word := phrase(name)) != SILENT]
    count = phrase("count")
    shape = phrase("shape")
    if count == "a":
        return _indefinite([*words, shape])
    return " ".join([count, *words, plural(shape) if many else shape])


def plural(noun: str) -> str:
    """stars, boxes, crosses."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def _indefinite(words: Sequence[str]) -> str:
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])
