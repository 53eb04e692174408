"""Laws of the arithmetic world: every answer is right, splits keep apart what they promise, items have addresses."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from itertools import pairwise

import pytest

from openjepa.core.errors import UserError
from openjepa.data.worlds import word_problems
from openjepa.data.worlds.arithmetic import SPLITS, Arithmetic, Difficulty, Problem, Split, is_held_out
from openjepa.data.worlds.word_problems import DISTRACTORS, NAMES, PRONOUN_OF, SCENES, Step
from tests.work import calls

HARD = Difficulty(operations=(1, 4), distractors=0.5)
MARK = re.compile(r"<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")
EXACT = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


@cache
def problems(
    split: Split = "train", count: int = 4000, seed: int = 0, difficulty: Difficulty | None = None
) -> list[Problem]:
    world = Arithmetic(split, count, seed, difficulty)
    return [world[index] for index in range(count)]


def form(template: str, name: str) -> re.Pattern[str]:
    """What a sentence looks like once told."""
    pattern = re.escape(template).replace(r"\{n\}", r"\d+").replace(r"\{name\}", name)
    return re.compile(re.sub(r"\\\{\w+\\\}", r"\\w+", pattern))


OPENINGS = [form(text, "([A-Z][a-z]+)") for scene in SCENES for text in scene.opening]


def steps(problem: Problem) -> list[Step]:
    return [Step(int(a), op, int(b), int(c)) for a, op, b, c, _ in MARK.findall(problem.answer)]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def person(problem: Problem) -> str:
    """The main person: the other one, if any, is of the other gender and never in the opening."""
    found = {match[1] for form in OPENINGS for match in [form.search(problem.question)] if match}
    assert len(found) == 1, problem.question
    return found.pop()


def sentences(unseen: bool) -> list[str]:
    return [t for s in SCENES for texts in (s.unseen if unseen else s.seen).last.values() for t in texts]


# --- every answer is right


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("difficulty", [Difficulty(), HARD])
def test_every_answer_is_right(split: Split, difficulty: Difficulty) -> None:
    for problem in problems(split, 2000, difficulty=difficulty):
        marks = MARK.findall(problem.answer)
        assert len(marks) == problem.operations == len(problem.answer.splitlines()) - 1
        for before, operation, number, after, told in marks:
            assert EXACT[operation](int(before), int(number)) == int(after) == int(told) >= 0
            assert operation != "/" or int(before) % int(number) == 0
        assert all(step.after == following.before for step, following in pairwise(steps(problem)))
        assert problem.answer.splitlines()[-1] == f"#### {problem.value}" == f"#### {steps(problem)[-1].after}"


def test_the_question_gives_all_numbers_in_order_and_one_more_for_a_distractor() -> None:
    for problem in problems(difficulty=HARD):
        chain = steps(problem)
        needed = [chain[0].before, *(step.number for step in chain)]
        given = numbers(problem.question)
        idle = [at for at in range(len(given)) if given[:at] + given[at + 1 :] == needed]
        assert given == needed or idle, problem


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_rate_of_distractors(share: float) -> None:
    made = problems(difficulty=Difficulty(distractors=share))
    with_one = [p for p in made if len(numbers(p.question)) == 3]
    assert len(with_one) / len(made) == pytest.approx(share, abs=0.03)
    idle = [form(text, r"\w+") for text in DISTRACTORS]
    assert all(any(fact.search(p.question) for fact in idle) for p in with_one)


def test_the_wording_decides_the_operation() -> None:
    """No sentence tells two operations, so a reader can know which is meant."""
    meant: dict[str, set[str]] = {}
    for wording in (wording for scene in SCENES for wording in (scene.seen, scene.unseen)):
        for operation, texts in wording.last.items():
            for text in texts:
                meant.setdefault(form(text, "NAME").pattern, set()).add(operation)
    assert [text for text, operations in meant.items() if len(operations) > 1] == []


# --- addresses


@pytest.mark.parametrize("split", SPLITS)
def test_an_item_is_a_function_of_its_address(split: Split) -> None:
    world, again = Arithmetic(split, 50, seed=3), Arithmetic(split, 5000, seed=3)
    assert [world[i] for i in reversed(range(50))] == [again[i] for i in reversed(range(50))]
    assert world[-1] == world[49]
    assert world[0] != Arithmetic(split, 50, seed=4)[0]
    with pytest.raises(IndexError):
        world[50]


def test_an_item_is_the_same_on_every_machine() -> None:
    problem = Arithmetic("train", 10, seed=0)[0]
    assert problem.question.startswith("Theo bakes 8 muffins.")


# --- splits


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("difficulty", [Difficulty(), HARD, Difficulty(largest=50, largest_factor=5)])
def test_no_combination_of_name_numbers_and_operations_is_on_both_sides(seed: int, difficulty: Difficulty) -> None:
    for split in ("train", "test", "templates"):
        for problem in problems(split, 700, seed, difficulty):
            assert is_held_out(person(problem), steps(problem)) == (split != "train"), problem.question


def test_an_eighth_is_held_out_of_each_calculation_in_either_order() -> None:
    calculations = [[Step(a, op, b, 0)] for a in range(2, 21) for b in range(2, 21) for op in "+-*/"]
    assert {sum(is_held_out(name, calculation) for name in NAMES) for calculation in calculations} == {len(NAMES) // 8}
    by_name = [sum(is_held_out(name, calculation) for calculation in calculations) for name in NAMES]
    assert min(by_name) > 0.08 * len(calculations)
    assert max(by_name) < 0.18 * len(calculations)
    for name in NAMES[:8]:
        assert is_held_out(name, [Step(3, "+", 5, 8)]) == is_held_out(name, [Step(5, "+", 3, 8)])
        assert is_held_out(name, [Step(3, "*", 5, 15)]) == is_held_out(name, [Step(5, "*", 3, 15)])


def test_held_out_templates_are_new_sentences_of_known_words() -> None:
    def words(texts: list[str]) -> set[str]:
        return {word for text in texts for word in re.findall(r"\{\w+\}|[A-Za-z]+", text.lower())}

    known = [t for scene in SCENES for t in (*scene.opening, *scene.question, *scene.things)]
    assert words(sentences(unseen=True)) - words(sentences(unseen=False) + known) == set()
    assert set(sentences(unseen=True)) & set(sentences(unseen=False)) == set()
    new = [form(text, r"\w+") for text in sentences(unseen=True)]
    for split in SPLITS:
        told = [any(sentence.search(p.question) for sentence in new) for p in problems(split, 1000)]
        assert all(told) if split == "templates" else not any(told), split


def test_held_out_numbers_are_above_the_range_of_train() -> None:
    for problem in problems("train", difficulty=HARD):
        for step in steps(problem):
            assert 2 <= step.number <= (20 if step.operation in "+-" else 12)
    for problem in problems("numbers", difficulty=HARD):
        for step in steps(problem):
            assert 21 <= step.number <= 40 if step.operation in "+-" else 13 <= step.number <= 24
    assert min(min(numbers(problem.question)) for problem in problems("numbers")) >= 13


# --- a world worth learning


def test_size_of_the_world() -> None:
    assert len(set(sentences(unseen=False))) >= 120
    assert len(set(sentences(unseen=True))) >= 48
    made = [problem.question for problem in problems(count=10_000)]
    assert len(set(made)) > 0.997 * len(made)
    # Draws with replacement from N equally likely questions repeat len^2 / 2N times: N is far above 200,000.
    assert len(made) ** 2 / (2 * max(1, len(made) - len(set(made)))) > 2_000_000


def test_answers_are_small_and_no_constant_is_often_right() -> None:
    values = [problem.value for problem in problems()]
    assert 0 <= min(values) <= max(values) <= 144
    assert max(values.count(value) for value in set(values)) / len(values) < 0.07
    for operation in "+-*/":
        share = sum(steps(problem)[0].operation == operation for problem in problems()) / len(values)
        assert share == pytest.approx(0.25, abs=0.03)
    assert max(problem.value for problem in problems("train", difficulty=HARD)) < 300


def test_number_of_operations_and_length() -> None:
    assert {problem.operations for problem in problems()} == {1}
    assert {problem.operations for problem in problems(difficulty=HARD)} == {1, 2, 3, 4}
    lengths = [len(re.findall(r"\w+|[^\w\s]", problem.question)) for problem in problems(count=10_000)]
    assert max(lengths) <= 50


def test_english() -> None:
    for problem in problems(difficulty=HARD) + problems("templates"):
        text = problem.question
        assert "{" not in text + problem.answer
        assert "  " not in text
        assert text.endswith("?")
        assert text.count("?") == 1
        assert re.search(r"[.] [a-z]", text) is None
    assert set(PRONOUN_OF.values()) == {"she", "he"}
    assert len(NAMES) == len(set(NAMES)) == 72


def test_schema_of_gsm8k() -> None:
    fields = [field.name for field in dataclasses.fields(Problem)]
    assert fields[:2] == ["question", "answer"]
    for problem in problems(difficulty=HARD):
        *lines, last = problem.answer.split("\n")
        assert re.fullmatch(r"#### \d+", last)
        assert all(re.fullmatch(r"\S.* = <<\d+[-+*/]\d+=\d+>>\d+", line) for line in lines)


def test_a_problem_costs_the_same_few_calls_however_large_the_world_is() -> None:
    few, many = Arithmetic("train", 500), Arithmetic("train", 10**9)
    list(map(few.__getitem__, range(500)))  # what is kept for all problems is made
    work = [calls(lambda world=world: [world[index] for index in range(500)]) for world in (few, many)]
    assert work[0] == work[1] < 500 * 200


# --- mistakes


@pytest.mark.parametrize(
    ("difficulty", "message"),
    [
        ({"operations": (0, 1)}, "operations must be"),
        ({"operations": (3, 2)}, "operations must be"),
        ({"operations": (1, 5)}, "operations must be"),
        ({"largest": 1}, "largest must be at least 2"),
        ({"largest_factor": 0}, "largest_factor must be at least 2"),
        ({"distractors": 1.5}, "distractors must be a share"),
    ],
)
def test_impossible_difficulty(difficulty: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Difficulty(**difficulty)


def test_wrong_split_and_size() -> None:
    with pytest.raises(UserError, match="'validation'"):
        Arithmetic("validation")  # ty: ignore[invalid-argument-type]
    with pytest.raises(UserError, match="size must be at least 1"):
        Arithmetic("train", 0)


def test_the_smallest_world_still_has_both_sides() -> None:
    smallest = Difficulty(operations=(1, 4), largest=2, largest_factor=2)
    assert all(problems(split, 200, difficulty=smallest) for split in SPLITS)


def test_every_scene_can_continue_after_every_operation() -> None:
    for scene in SCENES:
        for wording in (scene.seen, scene.unseen):
            for operation in word_problems.OPERATIONS:
                assert wording.followed[operation], (scene.things, operation)
        assert all(text.endswith("?") and "How many" in text for text in scene.question)
