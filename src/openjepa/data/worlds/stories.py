"""The stories world: short synthetic English documents told from known factors, the text counterpart of dSprites.

A document is one made-up event. Its latent factors are a topic (12), an agent, action, object and place of that topic
(8, 8, 8 and 6 each, so 96, 96, 96 and 72 classes), a manner (6), a sentiment (4), an outcome (5), the weather (6) and
the time (4). Every concept has five words, and no word belongs to two concepts. Five or six sentences tell the event
in active or passive voice, in natural or shuffled order, from about 240 templates, with some uninformative sentences.
Concepts come up twice or more, each time as another of their five words. So a hidden word can be predicted as a concept
from the rest of the document, but not as a surface form: what a latent predictor can learn here is synonymy. Weather
and time are scenery: told once as a rule, so nothing in the rest of a document predicts them, a latent predictor need
not represent them, and no probe tests them.

Document i of (split, seed) is a pure function of these three. The splits share no event: a fixed eighth of all
combinations of agent, action, object and place is kept for `test`, for every seed.

What may be concluded: whether a method learns to put meaning before wording where the distribution allows it, and how
methods compare at that under equal budgets. A triplet's paraphrase shares no content word with its anchor, and its
distractor shares nearly all, so TF-IDF is wrong nearly always and counting concepts is right nearly always.
What may not be concluded: anything on the quality of a model on natural language. Everything here is synthetic: words
are uniform, independent given the topic, never ambiguous, and sentences come from templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from openjepa.core.errors import UserError
from openjepa.core.tasks import Classification, Triplets
from openjepa.data.worlds.draws import Draw, pick
from openjepa.data.worlds.lexicon import FACTORS, IN_TOPIC, NAMES, PER_TOPIC, SYNONYMS, packed, unpack
from openjepa.data.worlds.telling import (
    EVENT_TOLD,
    MAX_MENTIONS,
    TOLD,
    Classes,
    Draft,
    Split,
    classes_for,
    draft_at,
    draw_at,
    is_held_out,
    kinds_for,
    orders_for,
    plan_for,
    shuffle,
)

SCENERY = ("weather", "time")  # factors told once: nothing else in a document predicts them


@dataclass(frozen=True)
class Story:
    """A synthetic document and the class of each factor it was told from."""

    text: str
    factors: dict[str, int]  # factor -> index into FACTORS[factor]


class Stories(Dataset):
    """Map-style data set of synthetic stories; item i is a function of (split, seed, i).

    Raises UserError for an unknown split or a size below one.
    """

    def __init__(self, split: Split = "train", size: int = 200_000, seed: int = 0) -> None:
        if split not in ("train", "test"):
            raise UserError(f"stories: split must be 'train' or 'test', not {split!r}")
        if size < 1:
            raise UserError(f"stories: size must be at least 1, not {size}")
        self.split: Split = split
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Story:
        if not -self.size <= index < self.size:
            raise IndexError(f"story {index} of {self.size}")
        draft = draft_at(self.split, self.seed, index % self.size)
        return Story(draft.text, dict(zip(NAMES, draft.classes, strict=True)))


def triplets(count: int = 1000, seed: int = 0) -> Triplets:
    """Held-out anchors, paraphrases (all factors equal, no content word shared) and distractors, as texts.

    A distractor is its anchor, word for word, but for two or three concepts of the event, of the same topic.
    """
    anchors = [draft_at("test", seed, index) for index in range(count)]
    draws = [draw_at(seed, "triplet", index) for index in range(count)]
    return Triplets(
        name="triplets",
        anchors=[anchor.text for anchor in anchors],
        positives=[_retold(anchor, draw).text for anchor, draw in zip(anchors, draws, strict=True)],
        negatives=[_altered(anchor, draw).text for anchor, draw in zip(anchors, draws, strict=True)],
    )


def factor_tasks(train: int = 2000, test: int = 1000, seed: int = 0) -> list[Classification]:
    """One probe task for each factor except scenery, on documents no model was trained on."""
    stories = Stories("test", train + test, seed)
    rows = [stories[index] for index in range(len(stories))]
    texts = [row.text for row in rows]
    tasks = []
    for name in (name for name in FACTORS if name not in SCENERY):
        labels = [row.factors[name] for row in rows]
        parts = (texts[:train], labels[:train], texts[train:], labels[train:])
        tasks.append(Classification(name, *parts, FACTORS[name]))
    return tasks


def semantic_example(seed: int = 0) -> tuple[str, str, str]:
    """Three short texts: an original, a variation in other words, and an unrelated one of another topic."""
    draw = draw_at(seed, "example")
    original, unrelated = (_short(classes_for(draw, held_out=True), draw) for _ in range(2))
    while unrelated.classes[0] == original.classes[0]:
        unrelated = _short(classes_for(draw, held_out=True), draw)
    return (
        original.text,
        _retold(original, draw, kinds=("dated_events", "feelings"), told=EVENT_TOLD).text,
        unrelated.text,
    )


def _short(classes: Classes, draw: Draw) -> Draft:
    """Two sentences that tell at least the event."""
    plan = plan_for(draw, ("dated_events", "feelings"), told=EVENT_TOLD)
    return Draft(classes, plan, orders_for(draw))


def _retold(anchor: Draft, draw: Draw, kinds: Sequence[str] = (), told: int = TOLD) -> Draft:
    """The same event in other sentences, from the words that the anchor did not use."""
    counts = unpack(anchor.mentions)
    limit = packed({name: min(MAX_MENTIONS, SYNONYMS - count) for name, count in counts.items()})
    avoid = {template for _, template in anchor.plan}
    plan = plan_for(draw, kinds or kinds_for(draw), told, limit, avoid)
    orders = []
    for count, order in zip(counts.values(), anchor.orders, strict=True):
        unused = list(order[count:])
        shuffle(unused, draw)
        orders.append(tuple(unused))
    return Draft(anchor.classes, plan, orders)


def _altered(anchor: Draft, draw: Draw) -> Draft:
    """The same sentences about another event: three of four main concepts replaced, sometimes sentiment or outcome."""
    while True:
        changed = list(IN_TOPIC)
        shuffle(changed, draw)
        classes = list(anchor.classes)
        for name in changed[:3]:
            _replace(classes, name, PER_TOPIC[name], draw)
        if draw() < 0.25:
            name = pick(("sentiment", "outcome"), draw)
            _replace(classes, name, len(FACTORS[name]), draw)
        if is_held_out(tuple(classes)):
            return Draft(tuple(classes), anchor.plan, anchor.orders)


def _replace(classes: list[int], name: str, size: int, draw: Draw) -> None:
    """Put another class of the same topic (of the same `size` classes) in place of this factor's."""
    factor = NAMES.index(name)
    first = classes[factor] - classes[factor] % size
    old = classes[factor] % size
    classes[factor] = first + (old + 1 + int(draw() * (size - 1))) % size
