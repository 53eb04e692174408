"""LANG-JEPA's own laws: defects planted in the recipe are caught, and a target knows nothing of its context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from openjepa.check import check_experiment, failed
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.method import StepOutput
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.data.loader import train_batches
from openjepa.data.masked_sentences import MaskedSentences, Sentences
from openjepa.models.transformer import take
from openjepa.recipes import lang_jepa
from openjepa.recipes.lang_jepa import LangJEPA
from tests.tiny import build_tiny


class NoMask(LangJEPA):
    """Nothing is masked: the context pass reads the whole document."""

    def see_context(self, batch: MaskedSentences) -> list[Tensor]:
        return [take(state, batch.context_at) for state in self.student.states(batch.ids, batch.valid)]


class ForgetsPlaces(LangJEPA):
    """The predictor is asked for the first sentence, whichever is meant."""

    def predict(self, batch: MaskedSentences, context: list[Tensor]) -> Tensor:
        return super().predict(replace(batch, asked=torch.zeros_like(batch.asked)), context)


class ForgetsTheTeacher(LangJEPA):
    """The EMA is never updated."""

    def after_step(self, progress: Progress) -> None:
        pass


class TrainsTargets(LangJEPA):
    """The student is its own target, with the gradient left in."""

    def teach(self, batch: MaskedSentences, some: Sentences) -> Tensor:
        states = self.student(take(batch.ids, some.at), *some.alone)
        return (some.weights @ states)[some.real]


@pytest.mark.parametrize(
    ("method", "law", "said"),
    [
        (NoMask, "no leak", "the context view contains it"),
        (ForgetsPlaces, "positions matter", "add positions"),
        (ForgetsTheTeacher, "the EMA target moves", "after_step leaves the target where it was"),
        (TrainsTargets, "targets carry no gradient", "latents.target"),
    ],
)
def test_a_planted_defect_fails_its_law_alone(
    method: type[LangJEPA], law: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lang_jepa, "LangJEPA", method)
    found = list(failed(check_experiment(build_tiny(tmp_path, recipe=lang_jepa))))
    assert [result.name for result in found] == [law]
    assert said in found[0].detail


def moved_by_the_context(experiment: Experiment) -> float:
    """How far targets move, at most, when only visible content changes."""
    batch, method = next(iter(train_batches(experiment, 0))), experiment.method
    other = torch.randint(method.vocab, batch.ids.shape, generator=generator_for(0, "other context"))
    changed = replace(batch, ids=torch.where(batch.hidden, batch.ids, other))
    with evaluating(method):
        before, after = (method.teach(one, one.hidden_part) for one in (batch, changed))
    return float((before - after).abs().max())


def test_a_sentence_read_alone_is_a_target_that_knows_nothing_of_its_context(tmp_path: Path) -> None:
    assert moved_by_the_context(build_tiny(tmp_path, recipe=lang_jepa)) == 0


@pytest.mark.parametrize("override", ["teacher_reads=document", ""])
def test_targets_that_attend_to_the_context_are_told(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By choice, or because the attention mask was forgotten."""
    if not override:

        class AttendsToAll(LangJEPA):
            def teach(self, batch: MaskedSentences, some: Sentences) -> Tensor:
                whole = self.teacher(batch.ids, batch.valid)
                return (some.weights @ take(whole, some.at))[some.real]

        monkeypatch.setattr(lang_jepa, "LangJEPA", AttendsToAll)
    assert moved_by_the_context(build_tiny(tmp_path, *filter(None, [override]), recipe=lang_jepa)) > 0.01


def test_with_a_contrast_the_targets_are_those_of_the_same_sentences(tmp_path: Path) -> None:
    plain, contrasted = (
        at_the_end(tmp_path, "target.norm=layer_norm", f"contrast.weight={weight}") for weight in (0, 0.5)
    )
    batch = next(iter(train_batches(plain, 0)))
    with evaluating(plain.method), evaluating(contrasted.method):
        expected = plain.method(batch).latents.target
        torch.testing.assert_close(contrasted.method(batch).latents.target, expected)
        known = plain.method.sentence_targets(batch, *batch.every_sentence)
    sentences = [int(row.max()) + 1 for row in batch.sentence]
    assert batch.document_of_all.tolist() == [row for row, count in enumerate(sentences) for _ in range(count)]
    first = torch.tensor([0, *sentences]).cumsum(0)[:-1]  # [B] where each row begins
    asked = (first[:, None] + batch.asked)[batch.asked_valid]  # [M]
    assert batch.hidden_of_all.nonzero()[:, 0].tolist() == asked.tolist()
    torch.testing.assert_close(known[asked], expected)


def test_the_contrast_is_part_of_the_loss_at_its_weight(tmp_path: Path) -> None:
    none, one, two = (evaluated(at_the_end(tmp_path, f"contrast.weight={weight}")) for weight in (0, 1, 2))
    assert "contrast" not in none.terms
    torch.testing.assert_close(two.terms["contrast"], 2 * one.terms["contrast"])
    torch.testing.assert_close(one.loss, torch.stack(list(one.terms.values())).sum())


def test_the_contrast_grows_from_its_part_of_the_run_on_and_is_kept_with_the_weights(tmp_path: Path) -> None:
    method = build_tiny(tmp_path, "contrast.weight=0.4", "contrast.start=0.6", recipe=lang_jepa).method
    weights = []
    for step in (0, 60, 80, 100):
        method.after_step(Progress(step, 100))
        weights.append(float(method.state_dict()["contrast.weight"]))
    assert weights == pytest.approx([0, 0, 0.2, 0.4])


PASSAGES = ("encoder.max_len=32", "sentences.passages=3", "predictor.alibi=true", "contrast.weight=0.5")


def test_documents_of_several_passages_keep_every_law(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, *PASSAGES, recipe=lang_jepa)
    assert next(iter(train_batches(experiment, 0))).size > 15  # several passages a document
    assert not list(failed(check_experiment(experiment)))


def test_a_prediction_reads_all_passages_of_its_document_and_no_other(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, *PASSAGES, recipe=lang_jepa)
    batch, method = next(iter(train_batches(experiment, 0))), experiment.method
    first = int((batch.document == 1).nonzero()[0, 0])  # the first passage of the second document
    assert int((batch.document == 1).sum()) > 1
    other = torch.randint(method.vocab, batch.ids.shape, generator=generator_for(0, "other context"))
    changed = torch.where(batch.hidden | ~batch.valid, batch.ids, other)
    with evaluating(method):
        before = method.predict_from_context(batch)
        ids = torch.cat([batch.ids[:first], changed[first : first + 1], batch.ids[first + 1 :]])
        moved = (method.predict_from_context(replace(batch, ids=ids)) - before).abs().amax(1)  # [M]
    document = batch.document[batch.asked_valid.nonzero()[:, 0]]  # [M]
    assert (moved[document == 1] > 1e-5).all()
    assert not moved[document != 1].any()


def test_a_passage_is_read_without_the_others_of_its_document(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, *PASSAGES, recipe=lang_jepa)
    batch, method = next(iter(train_batches(experiment, 0))), experiment.method
    other = torch.randint(method.vocab, batch.ids.shape, generator=generator_for(0, "other passages"))
    own = int((batch.document[1:] == batch.document[:-1]).nonzero()[0, 0])  # the next row is of the same document
    other[own] = batch.ids[own]
    with evaluating(method):
        before, after = (method.see_context(one)[-1] for one in (batch, replace(batch, ids=other)))
    assert torch.equal(before[own], after[own])
    assert not torch.equal(before[own + 1], after[own + 1])


def at_the_end(folder: Path, *overrides: str) -> Experiment:
    """LANG-JEPA as it is in the last step of a run, untrained."""
    experiment = build_tiny(folder, *overrides, recipe=lang_jepa)
    experiment.method.after_step(Progress(1, 1))
    return experiment


def evaluated(experiment: Experiment) -> StepOutput:
    with evaluating(experiment.method):
        return experiment.method(next(iter(train_batches(experiment, 0))))
