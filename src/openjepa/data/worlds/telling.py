"""How one synthetic story is told: draw the classes, the sentences and the order of words, then fill in the words.

A `Draft` holds these three, so that a triplet can keep one and change another. Templates are drawn until every factor
comes up and none too often: mentions per factor are packed into one integer (`lexicon.packed`), which makes that check
two sums and two masks. A document costs about 40 microseconds, 8 of them for seeding the generator.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import cache
from itertools import count, permutations, product
from typing import Literal, NamedTuple

from openjepa.data.worlds.draws import Draw, draws_at, pick, scrambled
from openjepa.data.worlds.lexicon import (
    BARE,
    CONCEPTS,
    FACTORS,
    IN_TOPIC,
    LEADS,
    NAMES,
    NEW,
    PER_TOPIC,
    SHARED,
    SYNONYMS,
    TEMPLATES,
    TOPICS,
    WITH_ARTICLE,
    Template,
    packed,
)

MAX_MENTIONS = 3  # of one concept in a document; leaves two words for a paraphrase that shares none
CORE_KINDS = ["dated_events", "recalls", "moods"]  # together they tell every factor within the tightest limit
PATIENCE = 200  # draws of templates before a document falls back to the core kinds
TEST_SHARE = 8  # one event in eight is held out

Split = Literal["train", "test"]
Plan = list[tuple[str, Template]]  # sentences in order, each with what leads into it
Classes = tuple[int, ...]  # per factor, in the order of NAMES
Order = tuple[int, ...]  # in which the words of a concept are used

_CONCEPTS = tuple(CONCEPTS[name] for name in NAMES)
_IN_TOPIC_SIZES = tuple(PER_TOPIC[name] for name in IN_TOPIC)
_MOODS = tuple(product(*(range(len(FACTORS[name])) for name in SHARED)))  # all classes of the factors without a topic
_ORDERS = tuple(permutations(range(SYNONYMS)))
_LIMIT = packed(dict.fromkeys(NAMES, MAX_MENTIONS))
_SIGN = packed(dict.fromkeys(NAMES, 8))  # top bit of each packed count
TOLD = packed(dict.fromkeys(NAMES[1:], 8))  # every document tells every factor; the topic need not be named
EVENT_TOLD = packed(dict.fromkeys(IN_TOPIC, 8))
_CARRY = packed(dict.fromkeys(NAMES, 7))  # added to a count of one or more, it sets the top bit


class Draft(NamedTuple):
    """A document before its words are put in."""

    classes: Classes
    plan: Plan
    orders: Sequence[Order]  # per factor

    @property
    def mentions(self) -> int:
        """Packed mentions per factor."""
        return sum(template.mentions for _, template in self.plan)

    @property
    def text(self) -> str:
        """The document: the k-th mention of a factor takes the k-th word of its order."""
        classes, _, orders = self
        used = [0] * len(NAMES)
        sentences = []
        for lead, template in self.plan:
            words = []
            for factor, kind in template.slots:
                nth = used[factor]
                used[factor] = nth + 1
                word = _CONCEPTS[factor][classes[factor]][orders[factor][nth]]
                if kind != BARE:
                    word = "the " + word if kind == NEW and nth else WITH_ARTICLE[word]
                words.append(word)
            sentence = lead + template.form % tuple(words)
            sentences.append(sentence[0].upper() + sentence[1:])
        return " ".join(sentences)


def draw_at(seed: int, *path: int | str) -> Draw:
    """The uniform draws that belong to this address among the stories."""
    return draws_at(seed, "stories", *path)


def draft_at(split: Split, seed: int, index: int) -> Draft:
    """Document `index` of this split and seed."""
    draw = draw_at(seed, split, index)
    classes = classes_for(draw, held_out=split == "test")
    plan = plan_for(draw, kinds_for(draw))
    return Draft(classes, plan, orders_for(draw))


def orders_for(draw: Draw) -> list[Order]:
    """For each factor, the order in which its words are used."""
    return [_ORDERS[int(draw() * len(_ORDERS))] for _ in NAMES]


def shuffle(items: list, draw: Draw) -> None:
    """Fisher and Yates, in place."""
    for last in range(len(items) - 1, 0, -1):
        other = int(draw() * (last + 1))
        items[last], items[other] = items[other], items[last]


@cache
def _events(held_out: bool) -> tuple[Classes, ...]:
    """All (topic, agent, action, object, place) of one side of the split."""
    ranges = [[range(t * size, (t + 1) * size) for size in _IN_TOPIC_SIZES] for t in range(TOPICS)]
    events = ((topic, *rest) for topic in range(TOPICS) for rest in product(*ranges[topic]))
    return tuple(event for event in events if is_held_out(event) == held_out)


def classes_for(draw: Draw, *, held_out: bool) -> Classes:
    """Classes of all factors, in the order of NAMES, for an event of the wanted side of the split."""
    return pick(_events(held_out), draw) + pick(_MOODS, draw)


def is_held_out(classes: Classes) -> bool:
    """Whether this agent, action, object and place belong to the test split: a fixed hash of the four."""
    _, agent, action, thing, place, *_ = classes
    return scrambled(((agent * 97 + action) * 97 + thing) * 97 + place) % TEST_SHARE == 0


def kinds_for(draw: Draw) -> list[str]:
    """Kinds of the five sentences of a document, sometimes six, in order of telling."""
    kinds = [*CORE_KINDS, "feelings", "outcomes"]
    extra = draw()
    if extra < 0.2:
        kinds.append("settings" if extra < 0.1 else "fillers")
    if draw() < 0.5:
        shuffle(kinds, draw)
    return kinds


def plan_for(
    draw: Draw, kinds: Sequence[str], told: int = TOLD, limit: int = _LIMIT, avoid: Set[Template] = frozenset()
) -> Plan:
    """Draw templates of these kinds until all factors in `told` come up and none more often than `limit` allows.

    Some kinds cannot keep a tight limit together; after PATIENCE draws the core kinds, which can, take their place.
    """
    pools = [TEMPLATES[kind] for kind in kinds]
    for attempt in count():
        if attempt == PATIENCE:
            pools = [TEMPLATES[kind] for kind in CORE_KINDS]
        templates = [pool[int(draw() * len(pool))] for pool in pools]
        mentions = sum([template.mentions for template in templates])
        within = (_SIGN + limit - mentions) & _SIGN == _SIGN  # no factor borrows from its top bit
        if within and (mentions + _CARRY) & told == told and avoid.isdisjoint(templates):
            break
    plan = [("", template) for template in templates]
    if draw() < 0.1:
        position = int(draw() * len(plan))
        plan[position] = (pick(LEADS, draw), templates[position])
    return plan
