"""What the demo answers: right neighbours, nothing unread in silence, errors that say what to do. No browser here."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import openjepa
from openjepa.api import Run
from openjepa.cli import main
from openjepa.core.errors import UserError
from openjepa.demo import render
from openjepa.demo.answers import MOST_CHARS, Chance, beginning, chance_of, checked, nearest, shortened
from openjepa.demo.hidden_sentence import HiddenSentence
from openjepa.demo.panels import panels_of
from openjepa.demo.questions import Questions
from openjepa.demo.similar_texts import MOST_TEXTS, SimilarTexts
from tests.tiny import NANO, TINY

STEPS = ("train.steps=2", "train.health_every=2", "train.checkpoint_every=2", "data.eval_fraction=0.2")
PARAGRAPH = "A dog chased the cat. The cat ran up a tree. Nobody could reach it. The dog went home."


@dataclass
class Runs:
    """A run of each recipe, two steps long."""

    texts: Run
    sentences: Run
    questions: Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(folder / "cache"))
        settings = {"t_jepa": TINY, "lang_jepa": TINY, "nano_jepa": NANO}
        made = [
            openjepa.train(recipe, out=folder / recipe, overrides=[*sizes, *STEPS], progress=False)
            for recipe, sizes in settings.items()
        ]
        made[2].train_readout(["steps=2", "warmup_steps=1", "dim=16", "depth=1", "heads=2", "eval_batches=1"])
        yield Runs(*made)


@pytest.fixture(scope="module")
def similar(runs: Runs) -> SimilarTexts:
    (panel,) = panels_of(runs.texts)
    assert isinstance(panel, SimilarTexts)
    return panel


@pytest.fixture(scope="module")
def hidden(runs: Runs) -> HiddenSentence:
    panel, other = panels_of(runs.sentences)
    assert isinstance(panel, HiddenSentence)
    assert isinstance(other, SimilarTexts)
    return panel


@pytest.fixture(scope="module")
def asked(runs: Runs) -> Questions:
    (panel,) = panels_of(runs.questions)
    assert isinstance(panel, Questions)
    return panel


def test_similar_texts_are_those_of_the_api_with_neighbours_from_the_held_out_texts(
    runs: Runs, similar: SimilarTexts
) -> None:
    texts = [similar.corpus[3], "a dog chased a cat"]
    answer = similar.ask("\n".join(f"  {text} \n" for text in texts))
    expected = runs.texts.similar(texts, similar.corpus)
    assert answer.texts == texts
    np.testing.assert_allclose(answer.cosine, expected["cosine"], atol=1e-5)
    assert answer.chance.mean == pytest.approx(expected["random_pairs"]["mean"], abs=1e-5)
    assert answer.note == ""
    for found, vector in zip(answer.neighbours, runs.texts.encode(texts), strict=True):
        assert not {match.text for match in found} & set(texts), "a text is no neighbour of itself"
        others = [text for text in similar.corpus if text not in texts]
        units = runs.texts.encode(others)
        cosines = units @ vector / np.linalg.norm(units, axis=1) / np.linalg.norm(vector)
        assert found[0].cosine == pytest.approx(cosines.max(), abs=1e-5)
        assert found[0].z == pytest.approx(answer.chance.z(found[0].cosine))


def test_a_text_that_is_read_in_parts_is_named(similar: SimilarTexts) -> None:
    answer = similar.ask("a short one\n" + "word " * 700)
    assert "longer: 2 (" in answer.note
    assert str(similar.rows.max_len) in answer.note


UNKNOWN = r"This run knows only the words of its synthetic world: \d+ % of these tokens are unknown to it\."


def test_words_that_the_run_does_not_know_are_counted(similar: SimilarTexts) -> None:
    known = similar.ask("\n".join(similar.corpus[:2]))
    assert not re.search(UNKNOWN, known.note)
    answer = similar.ask("日本語のテキスト\nПривет, мир!")
    assert re.search(UNKNOWN, answer.note)
    assert re.search(UNKNOWN, render.similar_texts(answer))


def test_words_of_a_paragraph_that_the_run_does_not_know_are_counted(hidden: HiddenSentence) -> None:
    sentence = hidden.ask("Привет, мир! Это совсем другой язык. Ничего не понятно.", 1)
    assert re.search(UNKNOWN, sentence.note)
    assert re.search(UNKNOWN, render.hidden_sentence(sentence))


def test_a_question_in_bytes_has_no_unknown_words(asked: Questions) -> None:
    answer = asked.ask("Сколько будет 2 + 3?")
    assert answer.note == ""
    assert "unknown" not in render.question(answer)


def test_a_hidden_sentence_cannot_change_what_is_predicted_for_it(hidden: HiddenSentence) -> None:
    """Its length can: the positions of the sentences after it tell it. So the other sentence has the same words."""
    first = hidden.ask(PARAGRAPH, 1)
    other = hidden.ask(PARAGRAPH.replace("The cat ran up a tree.", "A tree ran up the cat."), 1)
    np.testing.assert_allclose([m.cosine for m in first.elsewhere], [m.cosine for m in other.elsewhere], atol=1e-4)
    seen = hidden.ask(PARAGRAPH.replace("A dog chased the cat.", "The sun was hot today."), 1)
    assert [m.cosine for m in first.elsewhere] != pytest.approx([m.cosine for m in seen.elsewhere], abs=1e-4)


def test_the_hidden_sentence_is_ranked_and_marked(hidden: HiddenSentence) -> None:
    answer = hidden.ask(PARAGRAPH, 2)
    assert answer.sentences == hidden.sentences(PARAGRAPH)
    assert len(answer.sentences) == 4
    assert [match.text for match in answer.own if match.mark] == [answer.sentences[2]]
    assert answer.own[answer.rank - 1].mark == "hidden"
    assert answer.rank <= answer.rank_overall <= answer.candidates
    assert "openjepa readout" in answer.decoded.missing


def test_the_paragraphs_own_sentences_are_not_found_elsewhere(hidden: HiddenSentence) -> None:
    paragraph, number = hidden.examples()[0]
    answer = hidden.ask(paragraph, number)
    assert not {match.text for match in answer.elsewhere} & set(answer.sentences)


def test_a_paragraph_among_others_has_the_latents_of_its_document(hidden: HiddenSentence) -> None:
    """Targets are standardised over their batch: read alone, a paragraph's would be other ones (and useless)."""
    document = hidden.documents[0]
    _, own = hidden.predict(document, 0)
    cosines = [float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(own, hidden.latents)]  # noqa: B905
    assert min(cosines) > 0.98
    alone = hidden.targets([document])
    assert float(np.dot(alone[0], own[0]) / np.linalg.norm(alone[0]) / np.linalg.norm(own[0])) < 0.95


def test_a_question_is_answered_by_the_readout_and_beside_known_answers(runs: Runs, asked: Questions) -> None:
    question = asked.examples()[0]
    answer = asked.ask(f"  {question}\n")
    reader = runs.questions.readout()
    assert answer.answer == reader.texts(runs.questions.encode([question]))[0].strip()
    assert answer.true in asked.answers
    assert 1 <= answer.rank <= answer.candidates == len(asked.answers)
    unknown = asked.ask("How many moons has the earth?")
    assert unknown.true is None
    assert unknown.rank is None


def test_without_a_readout_the_nearest_answer_stands_in_and_a_hint_is_shown(
    asked: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "reader", "RUN has no readout yet; train one: openjepa readout RUN")
    answer = asked.ask(asked.examples()[0])
    assert answer.answer == answer.nearest[0].text
    shown = render.question(answer)
    assert "openjepa readout RUN" in shown
    assert f"It chose among {len(asked.answers)} known answers and can give no other." in shown
    assert asked.about.endswith(
        f"It can give {len(asked.answers)} answers: all different ones to its held-out questions."
    )


def test_an_answer_stands_beside_the_verdict_of_its_run(runs: Runs, asked: Questions) -> None:
    latest = runs.questions.health()[-1]
    shown = render.question(asked.ask(asked.examples()[0]))
    assert f"Verdict of this run: {latest['status']}" in shown
    assert f"at step {latest['step']}" in shown
    assert f"It can write any text; {len(asked.answers)} answers are known." in shown
    assert f"compared with {len(asked.answers)} known answers" in asked.about


def test_wrong_inputs_are_said_in_one_line_each(
    similar: SimilarTexts, hidden: HiddenSentence, asked: Questions
) -> None:
    with pytest.raises(UserError, match="empty"):
        similar.ask(" \n ")
    with pytest.raises(UserError, match="one text only"):
        similar.ask("just one\n\n")
    with pytest.raises(UserError, match=f"at most {MOST_TEXTS}"):
        similar.ask("a text\n" * (MOST_TEXTS + 1))
    with pytest.raises(UserError, match=f"at most {MOST_CHARS}"):
        similar.ask("x" * (MOST_CHARS + 1))
    with pytest.raises(UserError, match="one sentence only"):
        hidden.ask("A dog chased the cat.", 0)
    for number in (None, 4, -1):
        with pytest.raises(UserError, match="which of the 4 sentences"):
            hidden.ask(PARAGRAPH, number)
    with pytest.raises(UserError, match="this run reads"):
        hidden.ask("The dog and the cat went home again today. " * 60, 0)
    with pytest.raises(UserError, match="this run reads"):
        asked.ask("how many apples " * 100)


def test_examples_are_inputs_that_work(similar: SimilarTexts, hidden: HiddenSentence, asked: Questions) -> None:
    assert similar.examples()
    assert hidden.examples()
    assert asked.examples()
    for example in similar.examples():
        similar.ask(example)
    for paragraph, number in hidden.examples():
        hidden.ask(paragraph, number)
    for question in asked.examples():
        assert asked.ask(question).true is not None


def test_everything_that_was_typed_in_is_escaped(similar: SimilarTexts, hidden: HiddenSentence) -> None:
    attack = "<script>alert(1)</script>"
    shown = [
        render.similar_texts(similar.ask(f"{attack}\nanother text")),
        render.hidden_sentence(hidden.ask(f"{PARAGRAPH} {attack} is shown here.", 0)),
        render.error(attack),
        render.heading(attack, attack, None),
        render.cannot_open(attack),
        render.nothing_to_ask(attack),
    ]
    for html in shown:
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_every_cosine_stands_beside_its_z_and_the_mean_of_unrelated_texts(hidden: HiddenSentence) -> None:
    answer = hidden.ask(PARAGRAPH, 1)
    html = render.hidden_sentence(answer)
    rows = re.findall(r'<td class="number">(-?\d\.\d{3})</td><td class="number">([+-]\d+\.\d)</td>', html)
    assert rows == [(f"{m.cosine:.3f}", f"{m.z:+.1f}") for m in [*answer.own, *answer.elsewhere]]
    assert f"mean {answer.chance.mean:.3f}, standard deviation {answer.chance.std:.3f}" in html


def test_chance_and_order_of_known_cosines() -> None:
    found = np.array([0.0, 0.4, -0.4, 0.4])
    chance = chance_of(found, "four")
    assert (chance.mean, chance.std) == (pytest.approx(0.1), pytest.approx(np.std(found)))
    matches = nearest(["a", "b", "c", "d"], found, chance, 3)
    assert [match.text for match in matches] == ["b", "d", "a"]
    assert matches[0].z == pytest.approx(0.3 / np.std(found))
    assert Chance(0.5, 0.0, "").z(0.5) == 0.0, "equal cosines are no reason to divide by zero"


def test_limits_on_text() -> None:
    assert checked("  a text ", "text") == "a text"
    assert shortened("one two\n three", 100) == "one two three"
    assert shortened("one two three", 9) == "one two"
    assert len(shortened("x" * 500, 100)) == 100
    assert (beginning("one two three", 9), beginning("one", 9)) == ("one two ...", "one")


def test_a_run_whose_rows_no_panel_knows_has_none() -> None:
    experiment = SimpleNamespace(eval_data=torch.utils.data.TensorDataset(), collate=len)
    assert panels_of(SimpleNamespace(experiment=experiment, recipe="pixels")) == []  # ty: ignore[invalid-argument-type]


def test_without_gradio_the_verb_says_how_to_get_it(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # importing it now fails
    assert main(["demo", str(runs.texts.path)]) == 2
    assert 'pip install "openjepa[demo]"' in capsys.readouterr().err


def test_the_verb_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
