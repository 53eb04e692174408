"""The baselines keep the contract, and each is the objective that its paper states."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from openjepa.core.configure import configure
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.seeding import generator_for
from openjepa.data.loading.loader import eval_batches, train_batches
from openjepa.data.text.views import TextViews
from openjepa.health.metrics import health
from openjepa.health.monitor import look
from openjepa.objectives.contrast import info_nce, nt_xent
from openjepa.objectives.tokens import TokenHead
from openjepa.preflight.checks import check_experiment, failed
from openjepa.recipes import t_jepa
from openjepa.training.optim import build_optimizer
from tests.tiny import build_recipe

TEXT = ("mlm", "next_token", "simcse")
BASELINES = (*TEXT, "simclr")


@pytest.fixture(scope="module", params=BASELINES)
def experiment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return build_recipe(request.param, tmp_path_factory.mktemp("assets"))


def test_every_law_holds(experiment: Experiment) -> None:
    assert list(failed(check_experiment(experiment))) == []


def test_health_is_defined_and_no_prediction_is_perfect_or_worse_than_a_constant_by_construction(
    experiment: Experiment,
) -> None:
    batch = next(eval_batches(experiment))
    with evaluating(experiment.method):
        _, sample = look(experiment.method, batch)
        _, again = look(experiment.method, batch)
    found = health(sample)
    assert all(math.isfinite(value) for value in found.values())
    assert -0.05 < found["skill"] < 0.999
    if not isinstance(batch, TextViews):
        assert torch.equal(sample.predicted, again.predicted)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_learns(name: str, tmp_path: Path) -> None:
    experiment = build_recipe(name, tmp_path, "train.steps=60")
    method, losses = experiment.method.train(), []
    optimizer = build_optimizer(method, experiment.train)
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    for batch in train_batches(experiment, 0):
        output = method(batch)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(output.loss.detach()))
    assert sum(losses[-5:]) < 0.92 * sum(losses[:5])


@pytest.mark.parametrize("name", TEXT)
def test_a_preset_has_the_data_encoder_and_batches_of_t_jepa(name: str) -> None:
    _, ours = configure(f"baselines/{name}")
    _, theirs = configure("t_jepa")
    assert theirs.train == ours.train
    assert (ours.data, ours.tokenizer, ours.encoder) == (theirs.data, theirs.tokenizer, theirs.encoder)
    assert isinstance(theirs, t_jepa.Config)


@pytest.mark.parametrize("preset", ["tiny", "cifar10"])
def test_simclr_has_the_data_encoder_and_batches_of_lejepa_and_i_jepa(preset: str) -> None:
    _, ours = configure("baselines/simclr", preset)
    for recipe in ("lejepa", "i_jepa"):
        _, theirs = configure(recipe, preset)
        assert (ours.data, ours.encoder, ours.train) == (theirs.data, theirs.encoder, theirs.train)
    if preset == "cifar10":
        assert ours.augment == configure("lejepa", preset)[1].augment


def test_a_token_that_comes_later_changes_nothing_before_it(tmp_path: Path) -> None:
    experiment = build_recipe("next_token", tmp_path)
    batch = next(eval_batches(experiment))
    other = batch.with_other_hidden(generator_for(0, "test"))
    with evaluating(experiment.method):
        first, second = experiment.method.read(batch), experiment.method.read(other)
    assert torch.equal(first[~batch.hidden & batch.valid], second[~batch.hidden & batch.valid])
    assert not torch.equal(first[batch.hidden], second[batch.hidden])
    hidden, valid = batch.hidden.sum(1), batch.valid.sum(1)
    assert torch.equal(hidden, valid // 2)


def test_all_but_the_first_token_are_predicted(tmp_path: Path) -> None:
    experiment = build_recipe("next_token", tmp_path)
    batch, method = next(eval_batches(experiment)), experiment.method
    with evaluating(method):
        states = method.read(batch)
        logits = method.head.vocabulary(method.head.transform(states[:, :-1]))  # [B, T - 1, V]
        wanted = batch.ids[:, 1:].masked_fill(~batch.valid[:, 1:], -100)
        expected = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)
        torch.testing.assert_close(method(batch).loss, expected)


def test_mlm_shows_a_mask_and_hides_as_many_tokens_as_it_says(tmp_path: Path) -> None:
    experiment = build_recipe("mlm", tmp_path, "mask_ratio=0.3")
    batches = list(eval_batches(experiment, 2))
    share = sum(int(b.hidden.sum()) for b in batches) / sum(int(b.valid.sum()) for b in batches)
    assert share == pytest.approx(0.3, abs=0.02)
    follows = sum(int((b.hidden[:, 1:] & b.hidden[:, :-1]).sum()) for b in batches)
    assert follows / sum(int(b.hidden.sum()) for b in batches) == pytest.approx(0.3, abs=0.1)  # as if drawn one by one


def test_the_two_views_differ_by_dropout_alone_and_embeddings_by_nothing(tmp_path: Path) -> None:
    experiment = build_recipe("simcse", tmp_path)
    batch, method = next(eval_batches(experiment)), experiment.method
    with evaluating(method):
        latents = method(batch).latents
        assert not torch.equal(latents.predicted, latents.target)
        assert torch.equal(method.embed(batch), method.embed(batch))
        assert not method.student.training


def test_info_nce_equals_its_formula_and_is_log_b_for_equal_texts() -> None:
    first, second = (F.normalize(torch.randn(6, 4, generator=generator_for(0, name)), dim=1) for name in "ab")
    similar = torch.exp(first @ second.T / 0.05)
    expected = -(similar.diag() / similar.sum(1)).log().mean()
    torch.testing.assert_close(info_nce(first, second, 0.05), expected)
    same = first[:1].expand(6, 4)
    assert float(info_nce(same, same, 0.05)) == pytest.approx(math.log(6))


def test_nt_xent_equals_the_loop_of_its_formula() -> None:
    """Chen et al. 2020, eq. 1, word for word: -log of the own pair's share among all views but the view itself."""
    first, second = (F.normalize(torch.randn(5, 4, generator=generator_for(0, name)), dim=1) for name in "ab")
    views, losses = [*first, *second], []
    for i, anchor in enumerate(views):
        own = views[(i + 5) % 10]
        others = sum(math.exp(float(anchor @ view) / 0.5) for k, view in enumerate(views) if k != i)
        losses.append(-math.log(math.exp(float(anchor @ own) / 0.5) / others))
    assert float(nt_xent(first, second, 0.5)) == pytest.approx(sum(losses) / 10, rel=1e-5)


def test_nt_xent_has_its_closed_forms_and_knows_no_first_view() -> None:
    same = F.normalize(torch.ones(6, 4), dim=1)
    assert float(nt_xent(same, same, 0.5)) == pytest.approx(math.log(11))  # chance: 2 B - 1 candidates
    apart = torch.eye(6)  # each pair the same, all pairs orthogonal
    assert float(nt_xent(apart, apart, 0.5)) == pytest.approx(math.log(1 + 10 * math.exp(-2)))
    first, second = (F.normalize(torch.randn(6, 4, generator=generator_for(0, name)), dim=1) for name in "ab")
    torch.testing.assert_close(nt_xent(first, second, 0.5), nt_xent(second, first, 0.5))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(nt_xent(first, second, 0.5), nt_xent(first[order], second[order], 0.5))


def test_an_expected_embedding_explains_nothing_without_and_all_with_certainty() -> None:
    head = TokenHead(4, 7)
    ids = torch.arange(7)
    latents = torch.randn(7, 4, generator=generator_for(0, "latents"))
    with torch.no_grad():
        head.vocabulary.bias.zero_()
        head.vocabulary.bias[3] = 1e4
    torch.testing.assert_close(head.expected(latents), head.embeddings(torch.full((7,), 3)))
    with torch.no_grad():
        head.transform[2].weight.zero_()  # ty: ignore[call-non-callable]
        head.transform[2].bias.zero_()
        head.vocabulary.bias.zero_()
    torch.testing.assert_close(head.expected(latents), head.embeddings(ids).mean(0).expand(7, 4))
