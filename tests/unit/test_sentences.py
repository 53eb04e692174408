"""Sentence splitting: what every splitter owes (order, cover, bounds, linear time), and the rules on English cases."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openjepa.core.errors import ConfigError, UserError
from openjepa.data.text.sentences import SentencesConfig, Span, named_splitter, split_sentences
from tests.work import calls

RULES = SentencesConfig(min_chars=1, max_chars=100_000)
PIECES = [
    "Dr.",
    "U.S.",
    "p.m.",
    "3.5",
    "...",
    ". . .",
    "?!",
    "。",
    "\n",
    "\n\n",
    "\r\n",
    "•",
    "1.",
    "b)",
    '"',
    "”",
    "(",
    "I.",
]
TEXT_LIKE = st.lists(
    st.sampled_from([*PIECES, " ", "  ", "She", "ran", "a", "😀", "\x00", "\x1c", "\u200d", ".", "e\u0301"])
)
TEXTS = st.one_of(st.text(), TEXT_LIKE.map("".join), TEXT_LIKE.map(" ".join))


def split(text: str, config: SentencesConfig = RULES) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text, config)]


def assert_lawful(text: str, spans: list[Span]) -> None:
    """In order, apart, not empty, trimmed, and together every character that is not white space."""
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(text[start:end] and text[start:end] == text[start:end].strip() for start, end in spans)
    covered = "".join("".join(text[start:end].split()) for start, end in spans)
    assert covered == "".join(text.split())


@given(TEXTS, st.integers(1, 8), st.integers(16, 60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_covered_in_order_and_within_bounds(text: str, min_chars: int, max_chars: int) -> None:
    spans = split_sentences(text, SentencesConfig(min_chars=min_chars, max_chars=max_chars))
    assert_lawful(text, spans)
    assert all(end - start <= max_chars for start, end in spans)


@given(TEXTS, st.integers(2, 20))
@settings(max_examples=100, deadline=None)
def test_no_piece_stays_short_unless_it_is_the_whole_text(text: str, min_chars: int) -> None:
    spans = split_sentences(text, SentencesConfig(min_chars=min_chars, max_chars=100_000))
    assert len(spans) <= 1 or all(end - start >= min_chars for start, end in spans)


@pytest.mark.parametrize(
    "pattern",
    [
        "x",
        "word ",
        ".",
        ". ",
        " .",
        '."',
        "\n",
        "\n\t",
        ". A. ",
        "J. ",
        "\n1) ",
        "a) b) ",
        '. " ',
        "•",
        " •",
        "(",
        ". (",
        "…!",
        "。",
        "1.",
        ".[3]",
        ". [",
        ".[1,2",
        ".²",
        ")(",
        "a)(A. ",
    ],
)
def test_work_is_linear_whatever_repeats(pattern: str) -> None:
    """Twice the text takes twice the calls, and a long one ends: a pattern that backtracks would not in an hour."""
    half, whole = (pattern * (length // len(pattern)) for length in (20_000, 40_000))
    work = [calls(lambda text=text: split_sentences(text, SentencesConfig())) for text in (half, whole)]
    assert work[1] < 2 * work[0] + 100
    long = pattern * (100_000 // len(pattern))
    assert_lawful(long, split_sentences(long, SentencesConfig()))


def test_a_megabyte_without_a_boundary_is_cut() -> None:
    spans = split_sentences("no end in sight " * 62_500, SentencesConfig())
    assert max(end - start for start, end in spans) <= SentencesConfig().max_chars


# "|" marks where a sentence must begin: the text is the case without it.
CASES = [
    # marks
    "The kettle boils. |Pour it slowly.",
    "Is the shop open? |Try the back door! |Nobody answered.",
    "Stop!! |What?! |Really??? |Yes.",
    "The show Jeopardy! is on at seven.",
    "We met on iTunes. |iPhone owners paid less.",
    # titles, initials, names
    "Mr. and Mrs. Ode met Dr. Finn. |Prof. Lu left.",
    "Gen. Ray and Sgt. Moss wrote to Gov. Hill.",
    "It took 50 ms. |The rest was faster.",
    "The novel is by J. K. Osman. |P. D. Vane reviewed it.",
    "Martha J. Stone sold it to R.B. Kemp.",
    "They gave the part to you and I. |We were glad.",
    "Henry I. Brook keeps bees.",
    "Oranges have vitamin C. |The peel has more.",
    "Ana took train B. |How long did she ride?",
    "Al took box A. |Box B stayed.",
    # acronyms
    "He moved to the U.S. |He likes it.",
    "The U.S. Navy and the U.N. Council met in Washington, D.C. on Friday.",
    "She holds a Ph.D. in physics and a B.A. in art.",
    "Bring fruit, e.g. Bosc pears, i.e. Ripe ones.",
    # time
    "The bus left at 9 a.m. |Tom missed it.",
    "At 7:15 p.m. Tom came home. |He slept at 11 p.m. |Then it rained.",
    "Doors open at 6 p.m. Eastern and 3 p.m. Pacific.",
    "It is due on Jan. 4. |Sept. 9 is too late.",
    # companies, positions, streets
    "Ash, Birch & Co. makes desks. |Elm Inc. |It makes chairs.",
    "They climbed Mt. Rainier near St. Paul Ave. in Sept. 2011.",
    "Sammy Davis Jr. sang. |Ask Ken Jr. |They know.",
    "See Lee et al. |The proof is short.",
    # numbers
    "See No. 5 and Fig. 2 on p. 31 of Vol. IV. |It helps.",
    "Did it work? |No. |Try again.",
    "It costs $1.50. |She pays with $5.00 and gets 3.5 back.",
    "It weighs 5.0 kg. |3 more follow.",
    "The file is v2.10.3. |Install it.",
    # arithmetic
    "Tia has 3.5 x 4 = 14. |She eats 2. |How many are left?",
    "Ed sold 18/3=<<18/3=6>>6 kites in June.\n|Ed sold 18+6=<<18+6=24>>24 kites.\n|#### 24",
    "Each ticket is $<<30/4=7.5>>7.50.\n|So 3 tickets are $22.50\n|#### 22.50",
    "2x = 10\n|x = 5\n|y = 7",
    # quotes and brackets
    '"Come in." |She opened the door.',
    '"Come in," he said. |“Sit down.” |I sat.',
    "'Wait.' she said, 'I forgot.'",
    '"Are you sure?" asked Ben. |"Yes!" she said.',
    "He stayed (He had a ticket.) until noon. |(Nobody knew why.) |We left.",
    'He said " go home . " |Then he left .',
    "Some [...] Were lost (...) And found.",
    # brackets that touch, credits
    "Blue Door (Feat. R. Holm, T. Ask)(Prod. by Slow Joe)",
    "Blue Door (Prod. The Hills)(Feat. R. Holm)[Orig. Mix] was a hit. |It sold well.",
    "Night Bus (feat. Ria) and Rain (lit. House) came out. |Nobody bought them.",
    "It was quite a feat. |Nobody had done it before.",
    # ranks before an ampersand or a name
    "They walked back to Com. & Adm. through the dark.",
    "Adm. Sand, Com. Perry and Cpl. Jones met. |The sea was calm.",
    "He runs the .com. |It pays.".replace("the .com", "Shop.Com"),
    # footnote marks
    "It was shown before.[3] |Later work disagreed.[4,5]",
    "He left.[12][13] |She stayed.[a] |They met.[note 3] |It rained.[citation needed] |It ended.[2–4] |So it goes.",
    "Is it so?[2] |Yes!”[3] |He agreed (see Fig. 3).[5] |The rest is known.[6]: 12 |Then it was found.",
    "It grew.² |Then it fell.¹⁰",
    "The U.S.[3] Army met Dr.[2] Lee and Smith et al.[7] Kent joined.",
    "Lee et al. [2004] measured it, as others did [5]. |They agree.",
    "The plan was good.[3] but late, and e.g.[4] Bosc pears were missing.",
    "An index like x.[0] stays, and so does a.[12]b in code.",
    # ellipses
    "I thought... |Never mind.",
    "He paused ... |It was late, and ... I'll go.",
    "Well... it was late, and so...we left.",
    "He waited . . . and waited . . . I did not.",
    "That was all.... |She shrugged.",
    "It ends here . . . . |A new one begins.",
    "Nothing is certain. |. . . We go on. . . .",
    # lists
    "1. Wash the rice. |2. Boil it. |3. Serve.",
    "1) wash the rice |2) boil it |3) serve",
    "Steps: |1. Wash |2. Boil",
    "a) tea |b) milk |c) sugar",
    "(1) soak |(2) rinse",
    "• tea • milk".replace(" •", " |•"),
    "Q. Who is there? |A. It is Bo.",
    "Pay for 1. above and for 2. above.",
    # addresses
    "Write to jo.B@mail.example.com. |Or see https://a.example.org/x.html?q=1.5&r=A. |Thanks.",
    # lines
    "Heading\n|A first line.\n\n|and another paragraph",
    "this line is broken at\na width and goes on\nlike that. |It ends\nhere.",
    "He was mayor of\nLima, Peru,\nPaul a judge.\n|He retired there to\n|So it ended.\n|He retired",
    "Shopping:\n|- Tea\n|- milk\n|- bread",
    "One line.\r\n|Two lines.\r\r|Three.",
    # other scripts and cases
    "今日は晴れ。|明日は雨？|そう。",
    "彼は「行く。」と言った。|私も。",
    "यह घर है। |वह पेड़ है।",
    "all in lower case. |nobody minds. |mr. fox does.",
    "ALL IN CAPITALS. |MR. FOX SHOUTS.",
    "Good night! |😀 |Sleep well.".replace("😀 |", "😀 "),
]


@pytest.mark.parametrize("case", CASES)
def test_rules(case: str) -> None:
    assert split(case.replace("|", "")) == [sentence.strip() for sentence in case.split("|")]


def test_nothing_has_no_sentences() -> None:
    assert split("") == split(" \n\t\u2003") == []


def test_short_pieces_join_the_nearer_neighbour_else_the_next() -> None:
    config = SentencesConfig(min_chars=5)
    assert split("Will it rain? No. We can go.", config) == ["Will it rain?", "No. We can go."]
    assert split("Will it rain? No.\n\nWe can go.", config) == ["Will it rain? No.", "We can go."]
    assert split("It may rain. Ha.", config) == ["It may rain. Ha."]
    assert split("A! B! C!", config) == ["A! B! C!"]


def test_giant_sentences_are_cut_at_clauses_then_spaces_then_anywhere() -> None:
    config = SentencesConfig(min_chars=2, max_chars=30)
    assert split("the old red fox slept late, and the grey hen sang", config) == [
        "the old red fox slept late,",
        "and the grey hen sang",
    ]
    assert split("the old red fox slept late and the grey hen sang", config) == [
        "the old red fox slept late and",
        "the grey hen sang",
    ]
    assert split("x" * 61, config) == ["x" * 30, "x" * 29, "x" * 2]
    assert split("it costs 1,000,000,000,000 at most they say", config)[0] == "it costs 1,000,000,000,000 at"


def install(monkeypatch: pytest.MonkeyPatch, function: Callable[[str], Any]) -> str:
    module = ModuleType("house_splitter")
    module.__dict__["split"] = function
    monkeypatch.setitem(sys.modules, "house_splitter", module)
    named_splitter.cache_clear()
    return "house_splitter:split"


@pytest.mark.parametrize(
    "function",
    [
        lambda text: ["aa", "bb ", " aa"],
        lambda text: [(0, 2), (3, 5), (6, 9)],
        lambda text: iter([(0, 3), (3, 6), (6, 9)]),
    ],
)
def test_own_functions_return_strings_or_spans(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    splitter = named_splitter(install(monkeypatch, function))
    assert splitter("aa bb aa ") == [(0, 2), (3, 5), (6, 8)]


def test_what_an_own_function_leaves_out_stays_with_the_sentence_before(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SentencesConfig(splitter=install(monkeypatch, lambda text: ["one", "three"]), min_chars=1)
    assert split("* one two three four", config) == ["* one two", "three four"]


@pytest.mark.parametrize(
    "returned", [["one", "absent"], ["two", "one"], [(0, 9)], [(2, 4), (1, 5)], [(4, 3)], [(-1, 2)]]
)
def test_what_is_not_in_the_text_is_an_error_naming_the_splitter(
    monkeypatch: pytest.MonkeyPatch, returned: list[Any]
) -> None:
    config = SentencesConfig(splitter=install(monkeypatch, lambda text: returned))
    with pytest.raises(UserError, match="house_splitter:split"):
        split("one two", config)


def test_unknown_names_and_bad_bounds_are_errors() -> None:
    with pytest.raises(UserError, match="did you mean 'rules'"):
        named_splitter("rule")
    with pytest.raises(ConfigError, match="min_chars"):
        SentencesConfig.load({"min_chars": 60, "max_chars": 100})


def test_pysbd_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    named_splitter.cache_clear()
    monkeypatch.setitem(sys.modules, "pysbd", None)
    with pytest.raises(UserError, match="pip install pysbd"):
        named_splitter("pysbd")


def test_pysbd_gets_english_text_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    named_splitter.cache_clear()
    asked: dict[str, Any] = {}

    def segmenter(**options: Any) -> SimpleNamespace:
        asked.update(options)
        return SimpleNamespace(segment=lambda text: ["Hi you. ", "Go now."])

    stub = ModuleType("pysbd")
    stub.__dict__["Segmenter"] = segmenter
    monkeypatch.setitem(sys.modules, "pysbd", stub)
    assert importlib.import_module("pysbd") is stub
    assert split("Hi you. Go now.", SentencesConfig(splitter="pysbd")) == ["Hi you.", "Go now."]
    assert asked == {"language": "en", "clean": False}
    named_splitter.cache_clear()


def test_resolving_a_splitter_is_cached() -> None:
    assert named_splitter("rules") is named_splitter("rules")
