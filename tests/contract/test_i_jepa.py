"""The contract on I-JEPA: every law holds in every set-up."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa import api
from openjepa.core.errors import ConfigError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment, Sample
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.data.images.batches import MaskedImages
from openjepa.data.loading.loader import eval_batches, train_batches
from openjepa.health.monitor import look
from openjepa.models.target import EMATarget, Frozen
from openjepa.preflight.checks import check_experiment, failed
from tests.tiny import IMAGE, build_image

VARIANTS = {
    "as shipped": (),
    "means": ("regularized=mean", "target.norm=layer_norm"),
    "crops": ("augment.area=[0.4,1]", "augment.flip=0.5", "augment.jitter=0.5", "regularizer.name=sigreg"),
    "one block": ("mask.strategy=block", "target_encoder=self", "objective=cosine"),
    "random": ("mask.strategy=random", "target_encoder=frozen", "predictor.kind=mlp", "regularizer.name=none"),
    "both parts": ("regularized=mean", "invariance=0.5", "target.norm=standardize"),
    "conv stem": ("encoder.stem=conv", "target.layers=2"),
}


@pytest.fixture(scope="module", params=VARIANTS)
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return build_image(*VARIANTS[request.param])


def test_every_law_holds(experiment: Experiment) -> None:
    assert list(failed(check_experiment(experiment))) == []


def test_no_row_knows_its_batch(experiment: Experiment) -> None:
    def rows(count: int) -> list[Sample]:
        return [Sample(experiment.train_data[i], generator_for(0, "sample", 0, i), i) for i in range(count)]

    method = experiment.method
    together, alone = experiment.collate(rows(12)), experiment.collate(rows(2))
    with evaluating(method):
        predicted, few = method.predict_from_context(together), method.predict_from_context(alone)
        assert torch.allclose(predicted[: len(few)], few, atol=1e-5)
        assert torch.allclose(method.embed(together)[:2], method.embed(alone), atol=1e-5)


def test_latents_say_where_they_belong(experiment: Experiment) -> None:
    batch = next(eval_batches(experiment))
    assert isinstance(batch, MaskedImages)
    with evaluating(experiment.method):
        _, sample = look(experiment.method, batch)
    assert sample.embedding.shape == (batch.size, 32)
    assert sample.rows is not None
    assert sample.positions is not None
    assert sample.copied is not None
    assert batch.hidden[sample.rows, sample.positions].all()
    assert batch.hidden.sum() == len(sample.rows) == len(sample.predicted) == len(sample.target)
    assert sample.copied.shape == sample.target.shape


def test_images_of_any_kind_become_one_finite_vector_each(experiment: Experiment) -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (side, 30, 3), dtype=np.uint8) for side in (24, 50, 10)]
    batch = experiment.embedding.inputs(images)
    with evaluating(experiment.method):
        vectors = experiment.method.embed(batch)
    assert vectors.shape == (3, 32)
    assert vectors.isfinite().all()


def test_batches_are_masked_as_configured() -> None:
    batch = next(train_batches(build_image(), 0))
    assert isinstance(batch, MaskedImages)
    assert batch.images.shape == (15, 3, 24, 24)
    assert (batch.grid, batch.patches, batch.tokens) == ((6, 6), 36, 15 * 36)
    assert -1 <= batch.images.min() < batch.images.max() <= 1
    assert not (batch.shown & batch.hidden).any()
    assert batch.hidden_valid.sum(1).tolist() == batch.hidden.sum(1).tolist()
    assert len(set(batch.hidden.sum(1).tolist())) > 3  # padded, not cut to one length


def test_workers_change_nothing() -> None:
    def facts(workers: int) -> list[tuple]:
        experiment = build_image(f"train.workers={workers}", "train.steps=6", "augment.area=[0.4,1]")
        return [(b.keys.tolist(), b.hidden.tolist(), b.images.sum().item())
                for b in islice(train_batches(experiment, 2), 3)]  # fmt: skip

    assert facts(0) == facts(2)


def test_targets_are_whose_the_config_says() -> None:
    kinds = {kind: build_image(f"target_encoder={kind}").method.teacher for kind in ("ema", "frozen", "self")}
    assert isinstance(kinds["ema"], EMATarget)
    assert isinstance(kinds["frozen"], Frozen)
    assert kinds["self"] is None
    method = build_image("target_encoder=frozen").method.train()
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    with torch.no_grad():
        method.student.stem.weight.add_(1.0)
    method.after_step(Progress(0, 10))
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())
    assert not any(module.training for module in method.teacher.modules())


def test_momentum_is_idle_without_an_average() -> None:
    config = {kind: build_image(f"target_encoder={kind}").method.config for kind in ("ema", "frozen", "self")}
    assert {kind for kind, found in config.items() if "momentum" in found.unused()} == {"frozen", "self"}


def test_single_patches_are_not_pulled_together() -> None:
    with pytest.raises(ConfigError, match="give invariance=0 with regularized=patches"):
        build_image("regularized=patches", "invariance=0.5")


@pytest.mark.slow
def test_a_run_is_trained_judged_and_used(tmp_path: Path) -> None:
    run = api.train("i_jepa", out=tmp_path / "run", overrides=[*IMAGE, "train.steps=4"], progress=False)
    scenes = [np.array(image) for image in run.experiment.eval_data.pixels[:4]]
    assert run.encode(scenes).shape == (4, 32)
    (task, *_) = run.tasks()
    small = replace(task, train=task.train[:60], train_labels=task.train_labels[:60],
                    test=task.test[:30], test_labels=task.test_labels[:30])  # fmt: skip
    scorecard = run.evaluate([small]).to_json()
    assert {"run", "init", "random", "pixels", "chance"} <= set(scorecard["shape_knn"])
    assert "tfidf" not in scorecard["shape_knn"]
