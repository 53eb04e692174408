"""LANG-JEPA's own laws: a target knows nothing of its context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.method import StepOutput
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.data.loading.loader import train_batches
from openjepa.data.text.masked import MaskedText, random_ids
from openjepa.models.target import EMATarget
from openjepa.preflight.checks import check_experiment, failed
from openjepa.recipes import lang_jepa
from tests.tiny import build_tiny

TOP = "target.skip_top=0"  # the layer below it, of one block, are word embeddings, which read nothing else


def moved_by_the_context(experiment: Experiment) -> float:
    """How far targets move, at most, when only visible content changes."""
    batch, method = next(iter(train_batches(experiment, 0))), experiment.method
    other = random_ids(batch.ids, batch.vocab, generator_for(0, "other context"))
    changed = replace(batch, ids=torch.where(batch.hidden, batch.ids, other))
    with evaluating(method):
        before, after = (method.hidden_targets(one) for one in (batch, changed))
    return float((before - after).abs().max())


def test_a_sentence_read_alone_is_a_target_that_knows_nothing_of_its_context(tmp_path: Path) -> None:
    assert moved_by_the_context(build_tiny(tmp_path, TOP, recipe=lang_jepa)) == 0


def test_targets_that_attend_to_the_context_are_told(tmp_path: Path) -> None:
    assert moved_by_the_context(build_tiny(tmp_path, "teacher_reads=document", TOP, recipe=lang_jepa)) > 0.01


def test_a_sentence_read_alone_knows_nothing_of_the_other_hidden_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the test tells: with an attention mask that was forgotten, it does."""
    experiment = build_tiny(tmp_path, "mask.ratio=0.5", "target.norm=layer_norm", TOP, recipe=lang_jepa)
    batch, method = next(iter(train_batches(experiment, 0))), experiment.method
    rows = batch.row[batch.hidden_segments]  # [M]
    later = torch.cat([torch.tensor([False]), rows[1:] == rows[:-1]])  # [M], not the first hidden one of its row
    assert later.any()
    first = torch.isin(batch.segment, batch.hidden_segments[~later])  # [B, T]
    other = random_ids(batch.ids, batch.vocab, generator_for(0, "other first"))
    changed = replace(batch, ids=torch.where(first, other, batch.ids))

    def moved() -> Tensor:
        with evaluating(method):
            before, after = (method.hidden_targets(one) for one in (batch, changed))
        return (before - after).abs().amax(1)  # [M]

    assert moved()[later].max() == 0
    assert moved()[~later].min() > 0.01
    encode = EMATarget.states

    def without_mask(self: EMATarget, ids: Tensor, segments: Tensor, *rest: Any) -> list[Tensor]:
        return encode(self, ids, segments.clamp(max=0), *rest)  # every token of a row in one text

    monkeypatch.setattr(EMATarget, "states", without_mask)
    assert moved()[later].max() > 0.01


def test_with_a_contrast_the_targets_are_those_of_the_same_sentences(tmp_path: Path) -> None:
    plain, contrasted = (
        build_tiny(tmp_path, "target.norm=layer_norm", f"contrast.weight={weight}", recipe=lang_jepa)
        for weight in (0, 0.5)
    )
    batch = at_the_end(plain)
    with evaluating(plain.method), evaluating(contrasted.method):
        expected = plain.method(batch).latents.target
        output = contrasted.method(batch)
        assert "contrast" in output.terms
        torch.testing.assert_close(output.latents.target, expected)
        known = plain.method.all_targets(batch)  # [N, D]
    assert len(known) == len(batch.row) > len(expected)
    torch.testing.assert_close(known[batch.hidden_segments], expected)


def test_the_contrast_is_part_of_the_loss_at_its_weight(tmp_path: Path) -> None:
    none, one, two = (
        evaluated(experiment, at_the_end(experiment))
        for experiment in (build_tiny(tmp_path, f"contrast.weight={weight}", recipe=lang_jepa) for weight in (0, 1, 2))
    )
    assert "contrast" not in none.terms
    torch.testing.assert_close(two.terms["contrast"], 2 * one.terms["contrast"])
    torch.testing.assert_close(one.loss, torch.stack(list(one.terms.values())).sum())


def test_the_contrast_grows_from_its_part_of_the_run_on_and_keeps_no_state(tmp_path: Path) -> None:
    """Its weight follows the progress that the batch carries, so a resumed run has nothing to restore."""
    experiment = build_tiny(tmp_path, "contrast.weight=0.4", "contrast.start=0.6", recipe=lang_jepa)
    batch = at_the_end(experiment)
    whole = evaluated(experiment, batch).terms["contrast"] / 0.4
    for step, weight in ((0, 0), (60, 0), (80, 0.2), (100, 0.4), (70, 0.1)):  # also backwards
        terms = evaluated(experiment, replace(batch, progress=Progress(step, 100))).terms
        assert ("contrast" in terms) == (weight > 0)
        if weight:
            torch.testing.assert_close(terms["contrast"], weight * whole)
    before = {name: value.clone() for name, value in experiment.method.state_dict().items()}
    assert not [name for name in before if "contrast" in name]
    off = build_tiny(tmp_path, "contrast.weight=0", recipe=lang_jepa).method.state_dict()
    assert before.keys() == off.keys()


PASSAGES = ("encoder.max_len=32", "sentences.passages=3", "predictor.alibi=true", "contrast.weight=0.5")


def test_documents_of_several_passages_keep_every_law(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, *PASSAGES, recipe=lang_jepa)
    assert next(iter(train_batches(experiment, 0))).size > 15  # several passages a document
    assert not list(failed(check_experiment(experiment)))


def test_a_prediction_reads_all_passages_of_its_document_and_no_other(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, *PASSAGES, recipe=lang_jepa)
    batch, method = next(iter(train_batches(experiment, 0))), experiment.method
    first, *others = batch.row[batch.document == 1].unique().tolist()  # passages of the second document
    assert others
    other = random_ids(batch.ids, batch.vocab, generator_for(0, "other context"))
    changed = torch.where(batch.hidden | ~batch.valid, batch.ids, other)
    with evaluating(method):
        before = method.predict_from_context(batch)
        ids = torch.cat([batch.ids[:first], changed[first : first + 1], batch.ids[first + 1 :]])
        moved = (method.predict_from_context(replace(batch, ids=ids)) - before).abs().amax(1)  # [M]
    document = batch.document[batch.hidden_segments]  # [M]
    assert (moved[document == 1] > 1e-5).all()
    assert not moved[document != 1].any()


def test_a_passage_is_read_without_the_others_of_its_document(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, *PASSAGES, recipe=lang_jepa)
    batch, method = next(iter(train_batches(experiment, 0))), experiment.method
    other = random_ids(batch.ids, batch.vocab, generator_for(0, "other passages"))
    begins = torch.searchsorted(batch.row, torch.arange(batch.size))  # [B], the first segment of each row
    document = batch.document[begins]  # [B]
    own = int((document[1:] == document[:-1]).nonzero()[0, 0])  # the next row is of the same document
    other[own] = batch.ids[own]
    with evaluating(method):
        before, after = (method.encode_context(one)[-1] for one in (batch, replace(batch, ids=other)))
    assert torch.equal(before[own], after[own])
    assert not torch.equal(before[own + 1], after[own + 1])


def at_the_end(experiment: Experiment) -> MaskedText:
    """The first training batch, as if it were read in the last step of a run."""
    return replace(next(iter(train_batches(experiment, 0))), progress=Progress(1, 1))


def evaluated(experiment: Experiment, batch: MaskedText) -> StepOutput:
    with evaluating(experiment.method):
        return experiment.method(batch)
