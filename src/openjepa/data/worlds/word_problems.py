"""How a calculation of the arithmetic world is put into words, and its solution into the style of GSM8K.

The sentences are in `arithmetic_templates.yaml` beside this module, read once (about 10 ms): scenes of a kind of
things, each with openings, final questions and, for each operation, steps. A problem is an opening, a step for each
operation and a question; a step that asks its own question (a rate, a comparison, a sharing) closes the problem.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import yaml

from openjepa.data.worlds.draws import Draw, pick

Sentences = tuple[str, ...]
Wording = dict[str, Sentences]  # operation -> its steps

OPERATIONS = ("+", "-", "*", "/")  # as in the <<...>> marks of GSM8K
_DOING = {"+": "adding", "-": "taking away", "*": "multiplying by", "/": "dividing by"}
_PRONOUNS = {
    "she": {"he": "she", "He": "She", "him": "her", "his": "her"},
    "he": {"he": "he", "He": "He", "him": "him", "his": "his"},
}
_UNIT = re.compile(r"How many (\S+)")


class Step(NamedTuple):
    """One exact operation: `before` `operation` `number` = `after`."""

    before: int
    operation: str  # one of OPERATIONS
    number: int
    after: int


@dataclass(frozen=True)
class Steps:
    """Sentences that tell a step of a scene, by operation."""

    followed: Wording  # keep counting the scene's things, so that anything may follow
    last: Wording  # may end a problem: all of `followed`, and those that ask their own question

    @classmethod
    def of(cls, source: dict[str, list[str]]) -> Steps:
        followed = {operation: tuple(t for t in texts if t[-1] != "?") for operation, texts in source.items()}
        return cls(followed, {operation: tuple(texts) for operation, texts in source.items()})


@dataclass(frozen=True)
class Scene:
    """A kind of things and the sentences about them."""

    things: Sentences
    opening: Sentences
    question: Sentences
    seen: Steps
    unseen: Steps  # never used in training

    @classmethod
    def of(cls, source: dict[str, Any]) -> Scene:
        parts = (tuple(source[part]) for part in ("things", "opening", "question"))
        return cls(*parts, seen=Steps.of(source["seen"]), unseen=Steps.of(source["unseen"]))


def _read() -> dict[str, Any]:
    text = resources.files("openjepa.data.worlds").joinpath("arithmetic_templates.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml where it was compiled in


_SOURCE = _read()
SCENES = tuple(Scene.of(source) for source in _SOURCE["scenes"])
DISTRACTORS: Sentences = tuple(_SOURCE["distractors"])
PRONOUN_OF = {name: pronoun for pronoun, names in _SOURCE["names"].items() for name in names.split()}
NAMES: Sentences = tuple(PRONOUN_OF)
_FRIENDS = {p: tuple(name for name in NAMES if PRONOUN_OF[name] != p) for p in _PRONOUNS}  # of the other gender


def tell(name: str, steps: list[Step], distractor: int | None, draw: Draw, *, unseen: bool) -> tuple[str, str]:
    """Question and worked solution of these steps as a story about `name`; a distractor is told as an idle fact."""
    scene = pick(SCENES, draw)
    pronoun = PRONOUN_OF[name]
    things = pick(scene.things, draw)
    words = {"name": name, "friend": pick(_FRIENDS[pronoun], draw), "things": things, **_PRONOUNS[pronoun]}
    wording = scene.unseen if unseen else scene.seen

    sentences = [(pick(scene.opening, draw), steps[0].before)]
    sentences += [(pick(wording.followed[step.operation], draw), step.number) for step in steps[:-1]]
    sentences.append((pick(wording.last[steps[-1].operation], draw), steps[-1].number))
    if distractor is not None:
        sentences.insert(int(draw() * 2), (pick(DISTRACTORS, draw), distractor))
    question = " ".join([sentence.format(n=number, **words) for sentence, number in sentences])
    if question[-1] != "?":
        question += " " + pick(scene.question, draw).format(**words)
    return question, _worked(question, things, steps)


def _worked(question: str, things: str, steps: list[Step]) -> str:
    """One line a step with its <<calculation>>, then `#### value`. The last line counts what the question asks for."""
    unit_match = _UNIT.search(question)
    assert unit_match, question
    lines = []
    for step in steps:
        unit = unit_match[1] if step is steps[-1] else things
        sides = f"{step.before}{step.operation}{step.number}"
        done = f"{unit.capitalize()} after {_DOING[step.operation]} {step.number}"
        lines.append(f"{done}: {sides} = <<{sides}={step.after}>>{step.after}")
    return "\n".join([*lines, f"#### {steps[-1].after}"])
