"""The law of `core.distributed` on every recipe: two ranks have the gradient of one process with all their rows.

Both ranks are spawned once and measure all variants. The rows are unevenly spread (8 and 7), so are their lengths.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from openjepa.core.experiment import Experiment
from openjepa.core.method import Method
from openjepa.core.progress import Progress
from openjepa.data.loading.loader import train_batches
from tests.ranks import WORLD, measure_on_ranks
from tests.tiny import EVERY_RECIPE, build_recipe

VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tokens, vicreg": ("t_jepa", ("predict=tokens", "regularizer.name=vicreg")),
    "tokens, sigreg": (
        "t_jepa",
        ("predict=tokens", "regularizer.name=sigreg", "teacher_reads=text", "invariance=0"),
    ),
    "spans, vicreg": (
        "t_jepa",
        ("predict=spans", "regularizer.name=vicreg", "mask.how=mask", "target.norm=standardize"),
    ),
    "spans, sigreg": (
        "t_jepa",
        ("predict=spans", "regularizer.name=sigreg", "mlm_weight=0.1", "predictor.kind=mlp"),
    ),
    "lang_jepa, contrast": ("lang_jepa", ("contrast.weight=0.5", "contrast.start=0")),
    "concept_jepa": ("concept_jepa", ("contrast.weight=0.5", "sentences.passages=1")),
    "nano_jepa, vicreg": ("nano_jepa", ()),
    "nano_jepa, dropped step": (
        "nano_jepa",
        ("loss_dropout=0.99", "target_space=centered", "regularizer.name=sigreg"),
    ),
    "i_jepa, means": ("i_jepa", ("regularized=mean", "invariance=0.5", "target.norm=standardize")),
    "i_jepa, patches": ("i_jepa", ("regularized=patches",)),
    "lejepa, multi-crop": ("lejepa", ("global_views=2", "local_views=3", "regularizer.name=sigreg")),
    "lejepa, five views": ("lejepa", ("global_views=5", "local_views=0", "regularizer.name=vicreg")),
    "vl_jepa, captions": ("vl_jepa", ()),
    "vl_jepa, both directions": ("vl_jepa", ("directions=both",)),
    "vl_jepa, frozen": ("vl_jepa", ("train_vision=false", "text=shuffled", "regularizer.name=sigreg")),
    "mlm": ("mlm", ()),
    "next_token": ("next_token", ()),
    "simcse, negatives of both ranks": ("simcse", ("dropout=1e-9",)),  # nothing drops: ranks would draw other noise
    "simclr, negatives of both ranks": ("simclr", ()),
}
STEP = 3  # not the first, so that the draw of SIGReg's directions counts
LATE = Progress(9, 10)  # schedules are under way


def build(folder: Path, variant: str) -> Experiment:
    recipe, settings = VARIANTS[variant]
    return build_recipe(recipe, folder / recipe, *settings, "train.steps=10")


def test_every_recipe_has_a_variant() -> None:
    assert {recipe for recipe, _ in VARIANTS.values()} == set(EVERY_RECIPE)


def gradients(folder: Path, variant: str, rank: int, world: int) -> tuple[dict[str, Tensor], int]:
    """Of the loss of this rank's rows of the batch of STEP, averaged over ranks by DDP; and how many rows they are."""
    experiment = build(folder, variant)
    batch = replace(next(train_batches(experiment, STEP, rank, world)), progress=LATE)
    method: Method = experiment.method
    method.after_step(LATE)
    forward = DistributedDataParallel(method) if world > 1 else method
    forward(batch).loss.backward()
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}, batch.size


def every_variant(rank: int, folder: Path) -> dict[str, tuple[dict[str, Tensor], int]]:
    return {name: gradients(folder, name, rank, WORLD) for name in VARIANTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, tuple[dict[str, Tensor], int]]]:
    """What each rank measured."""
    for variant in VARIANTS:  # what is kept in the cache and in the assets is made once, by this process
        build(folder, variant).train_data[0]
    return measure_on_ranks(every_variant, folder)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_have_the_gradient_of_one(variant: str, folder: Path, ranks: list) -> None:
    single, rows = gradients(folder, variant, rank=0, world=1)
    (first, first_rows), (second, second_rows) = (measured[variant] for measured in ranks)
    assert (rows, first_rows, second_rows) == (15, 8, 7)
    assert set(first) == set(second) == set(single)
    assert all(torch.equal(first[name], second[name]) for name in first)
    scale = torch.cat([g.flatten() for g in single.values()]).norm()
    error = torch.cat([(single[name] - first[name]).flatten() for name in single]).norm()
    assert scale > 0.01
    assert error / scale < 1e-6
