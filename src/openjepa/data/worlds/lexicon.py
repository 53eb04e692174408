"""Words and sentences of the stories world: two reviewable YAML files beside this module, read once and checked.

`stories_lexicon.yaml` holds 397 concepts of five words each, `stories_templates.yaml` the sentences with slots for
them. This module turns them into flat tables that the generator can index; loading takes about 10 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

Words = tuple[str, ...]

SYNONYMS = 5  # words per concept
IN_TOPIC = ("agent", "action", "object", "place")  # factors whose classes belong to one topic each
SHARED = ("manner", "sentiment", "outcome", "weather", "time")  # factors whose classes go with every topic
NAMES = ("topic", *IN_TOPIC, *SHARED)

_SOUNDS_CONSONANT = ("ewe", "eu", "one", "uni", "usu")  # "a ewe", "a usurer"
_SOUNDS_VOWEL = ("heir", "honest", "honour", "hour")  # "an hourglass"


def _read(name: str) -> dict[str, Any]:
    text = resources.files("openjepa.data.worlds").joinpath(name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml where it was compiled in


def _concepts() -> dict[str, tuple[Words, ...]]:
    """Factor -> its concepts, each a tuple of five words. Class k of an in-topic factor is of topic k // PER_TOPIC."""
    source = _read("stories_lexicon.yaml")
    topics = source["topics"]
    lines: dict[str, Iterable[str]] = {"topic": [topic["topic"] for topic in topics]}
    lines |= {name: [line for topic in topics for line in topic[name]] for name in IN_TOPIC}
    lines |= {name: source["shared"][name] for name in SHARED}
    return {name: tuple(tuple(line.split()) for line in lines[name]) for name in NAMES}


def indefinite(word: str) -> str:
    """The word with "a" or "an", by sound: an onion, a ewe, an hourglass."""
    vowel = word.startswith(_SOUNDS_VOWEL) or (word[0] in "aeiou" and not word.startswith(_SOUNDS_CONSONANT))
    return f"{'an' if vowel else 'a'} {word}"


CONCEPTS = _concepts()
FACTORS: dict[str, Words] = {name: tuple(words[0] for words in concepts) for name, concepts in CONCEPTS.items()}
TOPICS = len(FACTORS["topic"])
PER_TOPIC = {name: len(FACTORS[name]) // TOPICS for name in IN_TOPIC}
CONCEPT_OF: dict[str, tuple[str, int]] = {
    word: (name, index) for name, concepts in CONCEPTS.items() for index, words in enumerate(concepts) for word in words
}
WITH_ARTICLE = {word: indefinite(word) for word in CONCEPT_OF}

_SLOT = re.compile(r"\{(?:(a|new) )?([a-z]+)\}")
_COUNT_BITS = 4  # a template's mentions per factor are packed into one int, so that those of sentences add up
BARE, WITH_A, NEW = range(3)


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: a set of templates costs nothing
class Template:
    """A sentence, ready to be filled: `form % words`."""

    form: str
    slots: tuple[tuple[int, int], ...]  # (factor index, BARE | WITH_A | NEW) in order of appearance
    mentions: int  # packed, see `unpack`

    @classmethod
    def compile(cls, text: str) -> Template:
        kinds = {"": BARE, "a": WITH_A, "new": NEW}
        slots = tuple((NAMES.index(name), kinds[kind]) for kind, name in _SLOT.findall(text))
        return cls(_SLOT.sub("%s", text), slots, sum(1 << _COUNT_BITS * index for index, _ in slots))


def packed(counts: Mapping[str, int]) -> int:
    """Mentions by factor name, in the packed form of `Template.mentions`."""
    return sum(count << _COUNT_BITS * NAMES.index(name) for name, count in counts.items())


def unpack(mentions: int) -> dict[str, int]:
    """Mentions by factor name, all factors."""
    return {name: mentions >> _COUNT_BITS * index & (1 << _COUNT_BITS) - 1 for index, name in enumerate(NAMES)}


def _templates(source: Mapping[str, list[str]]) -> dict[str, tuple[Template, ...]]:
    """Sentences by kind. Events come with each date before or after them."""
    kinds = ("settings", "recalls", "moods", "feelings", "outcomes", "fillers")
    texts = {kind: source[kind] for kind in kinds}
    events = source["events"] + source["events_turned"]
    texts["dated_events"] = [f"{date}{event}." for date in source["dates_before"] for event in source["events"]]
    texts["dated_events"] += [event + date for event in events for date in source["dates_after"]]
    return {kind: tuple(Template.compile(text) for text in lines) for kind, lines in texts.items()}


_SENTENCES = _read("stories_templates.yaml")
TEMPLATES = _templates(_SENTENCES)
LEADS: Words = tuple(_SENTENCES["leads"])
