"""The arithmetic world: word problems in GSM8K's schema, generated from a known calculation, exact and offline.

A problem is a short story about a person, a friend and things of one kind, in one of 12 scenes (a basket, a bus, a
tank, ...), with one to four operations (+ - x and division without remainder) and sometimes an idle fact whose number
must be ignored. What happens decides the operation: "gives 3 of them to Tom" takes away, "gives her 3 more" adds,
"has 3 times as many" multiplies. The answer is a worked solution in GSM8K's style (Cobbe et al. 2021): a line a step
with its <<5-3=2>> mark, last `#### 2`.

By default a problem has one operation, + and - of numbers from 2 to 20, x and division within the multiplication table
of 2 to 12, and every fourth problem has an idle fact; answers are 0 to 144. So a model must tell the operation from one
of 144 sentences, choose two of up to three numbers and know 567 facts of arithmetic. There are over 3 * 10^7 such
problems, friends and idle facts not counted. One costs about 40 microseconds.

Problem i of (split, seed, difficulty) is a pure function of these. A fixed eighth of all combinations of name,
numbers and operations is held out: a hash of the calculation decides which 9 of the 72 names never occur with it in
`train`, whatever the seed and the difficulty.

    train      the other seven eighths
    test       held-out combinations, in sentences and number ranges of `train`
    templates  as `test`, but each operation is told by a sentence that `train` never uses, in words that it does use
    numbers    as `train` in its sentences, but every number given is above the range that `train` has for that
               operation: + and - of 21 to 40, x and division with factors 13 to 24 (by default)

What may be concluded. `test`: the model reads a question it never saw, finds the operation and its numbers, and
recalls the result; not that it can calculate, for nearly each sum of two numbers was in `train` with another name.
`templates` minus `test`: the cost of a new sentence only, as all else is equal. `numbers`: whether it calculates facts
that it cannot have memorised; a low score is usual for small models.
What may not be concluded: anything on natural word problems, GSM8K included. Everything here is synthetic: scenes,
names and numbers are uniform and independent, and sentences come from templates.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

from torch.utils.data import Dataset

from openjepa.core.errors import UserError
from openjepa.data.worlds.draws import Draw, draws_at, pick
from openjepa.data.worlds.word_problems import NAMES, OPERATIONS, Step, tell

Split = Literal["train", "test", "templates", "numbers"]
SPLITS: tuple[Split, ...] = get_args(Split)
HELD_OUT_SHARE = 8  # one combination in eight
SMALLEST = 2  # number given in a problem
MAX_OPERATIONS = 4

_HELD_OUT_NAMES = [NAMES[group::HELD_OUT_SHARE] for group in range(HELD_OUT_SHARE)]
_TRAIN_NAMES = [tuple(name for name in NAMES if name not in held_out) for held_out in _HELD_OUT_NAMES]


@dataclass(frozen=True)
class Problem:
    """A word problem; `question` and `answer` are the columns of GSM8K."""

    question: str
    answer: str  # worked solution, last line "#### value"
    value: int  # the number that answers the question, >= 0
    operations: int


@dataclass(frozen=True)
class Difficulty:
    """What makes a problem hard. Raises UserError, naming the field, for values that make no problems."""

    operations: tuple[int, int] = (1, 1)  # fewest and most, both included
    largest: int = 20  # number in + and -
    largest_factor: int = 12  # factor in x, divisor and quotient in division
    distractors: float = 0.25  # share of problems with an idle fact

    def __post_init__(self) -> None:
        fewest, most = self.operations
        if not 1 <= fewest <= most <= MAX_OPERATIONS:
            raise UserError(f"operations must be (fewest, most) within 1 to {MAX_OPERATIONS}, not {self.operations}")
        for field, value in (("largest", self.largest), ("largest_factor", self.largest_factor)):
            if value < SMALLEST:
                raise UserError(f"{field} must be at least {SMALLEST}, not {value}")
        if not 0 <= self.distractors <= 1:
            raise UserError(f"distractors must be a share from 0 to 1, not {self.distractors}")


class Arithmetic(Dataset):
    """Map-style data set of word problems; item i is a function of (split, seed, difficulty, i).

    Raises UserError for an unknown split or a size below one.
    """

    def __init__(
        self, split: Split = "train", size: int = 200_000, seed: int = 0, difficulty: Difficulty | None = None
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"arithmetic: split must be one of {', '.join(SPLITS)}, not {split!r}")
        if size < 1:
            raise UserError(f"arithmetic: size must be at least 1, not {size}")
        self.split: Split = split
        self.size = size
        self.seed = seed
        self.difficulty = difficulty or Difficulty()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not -self.size <= index < self.size:
            raise IndexError(f"problem {index} of {self.size}")
        return _problem(self.split, self.seed, index % self.size, self.difficulty)


@dataclass(frozen=True)
class _Ranges:
    """The numbers of a split, both ends included."""

    terms: tuple[int, int]  # in + and -
    factors: tuple[int, int]  # in x; divisor and quotient in division

    @classmethod
    def of(cls, split: Split, difficulty: Difficulty) -> _Ranges:
        term = difficulty.largest
        factor = difficulty.largest_factor
        if split == "numbers":
            return cls((term + 1, 2 * term), (factor + 1, 2 * factor))
        return cls((SMALLEST, term), (SMALLEST, factor))


def is_held_out(name: str, steps: list[Step]) -> bool:
    """Whether this person with these numbers and operations is kept from training, for every seed and difficulty.

    The order of a first sum or product does not count: 3 + 5 is held out with 5 + 3.
    """
    return name in _HELD_OUT_NAMES[_group(steps)]


def _group(steps: list[Step]) -> int:
    """Which eighth of the names is held out with this calculation: a fixed hash of it."""
    start, operation, number, _ = steps[0]
    first = sorted((start, number)) if operation in "+*" else (start, number)
    key = repr((operation, *first, [step[1:3] for step in steps[1:]]))
    return hashlib.blake2b(key.encode(), digest_size=8).digest()[0] % HELD_OUT_SHARE


def _problem(split: Split, seed: int, index: int, difficulty: Difficulty) -> Problem:
    draw = draws_at(seed, "arithmetic", split, index)
    ranges = _Ranges.of(split, difficulty)
    steps = _steps(_between(difficulty.operations, draw), ranges, draw)
    names = (_TRAIN_NAMES if split in ("train", "numbers") else _HELD_OUT_NAMES)[_group(steps)]
    distractor = _between(ranges.terms, draw) if draw() < difficulty.distractors else None
    question, answer = tell(pick(names, draw), steps, distractor, draw, unseen=split == "templates")
    return Problem(question, answer, steps[-1].after, len(steps))


def _steps(count: int, ranges: _Ranges, draw: Draw) -> list[Step]:
    """A chain of exact operations, each on the result of the one before."""
    steps = [_first(pick(OPERATIONS, draw), ranges, draw)]
    while len(steps) < count:
        steps.append(_next(steps[-1].after, ranges, draw))
    return steps


def _first(operation: str, ranges: _Ranges, draw: Draw) -> Step:
    left, right = (_between(ranges.terms if operation in "+-" else ranges.factors, draw) for _ in range(2))
    if operation == "+":
        return Step(left, "+", right, left + right)
    if operation == "-":
        left, right = max(left, right), min(left, right)
        return Step(left, "-", right, left - right)
    if operation == "*":
        return Step(left, "*", right, left * right)
    return Step(left * right, "/", right, left)


def _next(before: int, ranges: _Ranges, draw: Draw) -> Step:
    """An operation that this result allows within the ranges; adding is always one."""
    (low, high) = ranges.terms
    (low_factor, high_factor) = ranges.factors
    added = _between(ranges.terms, draw)
    factor = _between(ranges.factors, draw)
    options = [Step(before, "+", added, before + added)]
    if before >= low:
        taken = _between((low, min(before, high)), draw)
        options.append(Step(before, "-", taken, before - taken))
    if low_factor <= before <= high_factor:
        options.append(Step(before, "*", factor, before * factor))
    divisors = [d for d in range(low_factor, high_factor + 1) if d * low_factor <= before <= d * high_factor]
    divisors = [d for d in divisors if before % d == 0]
    if divisors:
        divisor = pick(divisors, draw)
        options.append(Step(before, "/", divisor, before // divisor))
    return pick(options, draw)


def _between(bounds: tuple[int, int], draw: Draw) -> int:
    low, high = bounds
    return low + int(draw() * (high - low + 1))
