"""The contract on LeJEPA: every law holds with any number and size of views; the loss is the paper's, and VICReg's."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from openjepa import api
from openjepa.core.configure import configure
from openjepa.core.errors import ConfigError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.data.images.batches import ImageViews
from openjepa.data.loading.loader import eval_batches, train_batches
from openjepa.health.monitor import look
from openjepa.objectives.regularizers import sigreg, vicreg
from openjepa.preflight.checks import check_experiment, failed
from openjepa.recipes.lejepa import LeJEPA
from tests.planted import failing
from tests.tiny import VIEWS, build_views

VICREG = ("regularizer.name=vicreg", "prediction_weight=4")
VARIANTS = {
    "two views": ("local_views=0",),
    "two views, vicreg": ("local_views=0", *VICREG, "projector.kind=none"),
    "five views": ("global_views=5", "local_views=0", "augment.jitter=0.8"),
    "multi-crop": ("global_views=2", "local_views=4"),
    "multi-crop, vicreg, conv stem": ("global_views=2", "local_views=3", *VICREG, "encoder.stem=conv"),
    "one global view": ("global_views=1", "local_views=2", "local_size=8"),
}


@pytest.fixture(scope="module", params=VARIANTS)
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return build_views("train.steps=6", *VARIANTS[request.param])


def projections(method: LeJEPA, views: Tensor) -> list[Tensor]:
    """Each view [B, Z], one after the other."""
    return [method.projector(method.student(view).mean(1)) for view in views.unbind(1)]


def test_every_law_holds(experiment: Experiment) -> None:
    assert list(failed(check_experiment(experiment))) == []


@pytest.mark.parametrize("views", [("local_views=0",), ("global_views=3", "local_views=0"), ("local_views=4",)])
def test_the_loss_is_the_papers(views: tuple[str, ...]) -> None:
    """View by view: (1 - lambda) * mean |z_v - mean of the global ones|^2 + lambda * SIGReg, which is N times ours."""
    share, rows = 0.05, 15
    weights = (f"prediction_weight={1 - share}", f"regularizer.weight={share * rows}", "regularizer.name=sigreg")
    experiment = build_views(*views, *weights)
    method, batch = experiment.method, next(eval_batches(experiment))
    assert isinstance(method, LeJEPA)
    assert isinstance(batch, ImageViews)
    assert batch.size == rows
    with evaluating(method):
        global_views = projections(method, batch.global_views)
        every = global_views + projections(method, batch.local_views)
        centre = torch.stack(global_views).mean(0)
        prediction = sum((view - centre).square().mean() for view in every) / len(every)
        statistic = sum(rows * sigreg(view, batch.draw)["sigreg"] for view in every) / len(every)
        torch.testing.assert_close(method(batch).loss, (1 - share) * prediction + share * statistic)


def test_the_preset_cifar10_has_vicregs_loss_to_the_last_digit() -> None:
    """mse(z, z') + variance + 0.2 * covariance, each a mean over both views: as two views had before."""
    _, preset = configure("lejepa", "cifar10")
    weights = preset.regularizer
    assert (weights.name, weights.weight, weights.covariance, weights.mean) == ("vicreg", 1, 0.2, 0)
    experiment = build_views(
        *(f"{key}={preset.setting(key)}" for key in ("global_views", "local_views", "prediction_weight")),
        *(f"regularizer.{key}={value}" for key, value in weights),
        f"projector.kind={preset.projector.kind}",
    )
    method, batch = experiment.method.train(), next(train_batches(experiment, 0))
    assert isinstance(method, LeJEPA)
    assert isinstance(batch, ImageViews)
    terms = method(batch).terms
    both = method.student(batch.global_views.transpose(0, 1).flatten(0, 1)).mean(1)
    first, second = both.chunk(2)  # each [B, Z]
    assert torch.equal(terms["prediction"], (first - second).square().mean(-1).mean())
    parts = [vicreg(view, covariance_weight=0.2) for view in (first, second)]
    assert torch.equal(terms["variance"], (parts[0]["variance"] + parts[1]["variance"]) / 2)
    assert torch.equal(terms["covariance"], (parts[0]["covariance"] + parts[1]["covariance"]) / 2)
    assert set(terms) == {"prediction", "variance", "covariance"}


def test_health_is_read_from_a_view_that_is_not_part_of_its_target(experiment: Experiment) -> None:
    method, batch = experiment.method, next(eval_batches(experiment))
    assert isinstance(method, LeJEPA)
    assert isinstance(batch, ImageViews)
    with evaluating(method):
        output, sample = look(method, batch)
        global_views = projections(method, batch.global_views)
        assert output.latents is not None
        torch.testing.assert_close(output.latents.predicted, method.predict_from_context(batch))
    targets = global_views if batch.has_local_views else global_views[1:]
    torch.testing.assert_close(output.latents.target, torch.stack(targets).mean(0))
    assert sample.embedding.shape == (batch.size, 32)
    assert sample.rows is None


def test_a_view_that_reads_the_others_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What predicts is what is to be predicted."""
    monkeypatch.setattr(LeJEPA, "predict_from_context", lambda self, batch: self.project(batch.global_views)[-1])
    for variant in ("two views", "multi-crop"):
        assert failing(build_views(*VARIANTS[variant])) == ["no leak"]


def test_workers_change_nothing() -> None:
    def facts(workers: int) -> list[tuple]:
        experiment = build_views(f"train.workers={workers}", "train.steps=6", "local_views=2")
        return [(b.keys.tolist(), b.global_views.sum().item(), b.local_views.sum().item())
                for b in islice(train_batches(experiment, 2), 3)]  # fmt: skip

    assert facts(0) == facts(2)


def test_the_image_stays_beside_its_views(experiment: Experiment) -> None:
    batch = next(train_batches(experiment, 0))
    first = torch.tensor(np.array(experiment.train_data[int(batch.keys[0])])).permute(2, 0, 1)
    assert torch.allclose((batch.images[0] + 1) * 127.5, first.float(), atol=1e-3)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match="raise global_views or local_views"):
        build_views("global_views=1", "local_views=0")
    with pytest.raises(ConfigError, match=r"local_size=10 .* patches of 4; let encoder\.patch divide local_size"):
        build_views("local_views=2", "local_size=10")
    assert build_views("local_views=0", "local_size=10")  # not used


def test_settings_of_local_views_are_idle_without_them() -> None:
    from openjepa.recipes.lejepa import Config

    assert Config(local_views=0).unused() >= {"local_size", "local_area"}
    assert not Config(local_views=1).unused() & {"local_size", "local_area"}


@pytest.mark.slow
def test_a_run_learns_and_embeds(tmp_path: Path) -> None:
    settings = [*VIEWS, "train.steps=4", "global_views=2", "local_views=2"]
    run = api.train("lejepa", out=tmp_path / "run", overrides=settings, progress=False)
    scenes = [np.array(image) for image in run.experiment.eval_data.pixels[:4]]
    assert run.encode(scenes).shape == (4, 32)
