"""The law of `core.distributed` on the real recipe: two ranks have the gradient of one process with all their rows.

Both ranks are spawned once and measure all variants. The rows are unevenly spread (8 and 7), so are their lengths.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from openjepa.core.experiment import Experiment
from openjepa.core.method import Method
from openjepa.core.progress import Progress
from openjepa.data.loader import train_batches
from openjepa.recipes import lang_jepa
from openjepa.recipes.baselines import simclr
from tests.ranks import WORLD, measure_on_ranks
from tests.tiny import IMAGE, build_image, build_nano, build_tiny, build_vl

VARIANTS = {
    "tokens, vicreg": ("predict=tokens", "regularizer.name=vicreg"),
    "tokens, sigreg": ("predict=tokens", "regularizer.name=sigreg", "teacher_reads=text", "invariance=0"),
    "spans, vicreg": ("predict=spans", "regularizer.name=vicreg", "mask.how=mask", "target.norm=standardize"),
    "spans, sigreg": ("predict=spans", "regularizer.name=sigreg", "mlm_weight=0.1", "predictor.kind=mlp"),
}
NANO_VARIANTS = {
    "nano_jepa, vicreg": (),
    "nano_jepa, dropped step": ("loss_dropout=0.99", "target_space=centered", "regularizer.name=sigreg"),
}
IMAGE_VARIANTS = {
    "image_jepa, masks": ("invariance=0.5", "target.norm=standardize"),
    "image_jepa, views": ("mode=views", "augment.area=[0.4,1]", "regularizer.name=sigreg"),
}
LANG = "lang_jepa, contrast"
CONTRASTIVE = "simclr, negatives of both ranks"
VL_VARIANTS = {
    "vl_jepa, captions": ("words=mean",),
    "vl_jepa, frozen": ("train_vision=false", "text=shuffled", "regularizer.name=sigreg"),
}
EVERY = [*VARIANTS, *NANO_VARIANTS, *IMAGE_VARIANTS, LANG, CONTRASTIVE, *VL_VARIANTS]
STEP = 3  # not the first, so that the draw of SIGReg's directions counts


def build(folder: Path, variant: str) -> Experiment:
    if variant in NANO_VARIANTS:
        return build_nano(folder / "nano", *NANO_VARIANTS[variant], "train.steps=10")
    if variant in IMAGE_VARIANTS:
        return build_image(*IMAGE_VARIANTS[variant], "train.steps=10")
    if variant == LANG:
        return build_tiny(folder, "contrast.weight=0.5", "contrast.start=0", "train.steps=10", recipe=lang_jepa)
    if variant == CONTRASTIVE:
        settings = [setting for setting in IMAGE if not setting.startswith(("predictor.", "projector."))]
        return build_tiny(folder, "train.steps=10", recipe=simclr, settings=settings)
    if variant in VL_VARIANTS:
        return build_vl(folder / "vl", *VL_VARIANTS[variant], "train.steps=10")
    return build_tiny(folder, *VARIANTS[variant], "train.steps=10")


def gradients(folder: Path, variant: str, rank: int, world: int) -> tuple[dict[str, Tensor], int]:
    """Of the loss of this rank's rows of the batch of STEP, averaged over ranks by DDP; and how many rows they are."""
    experiment = build(folder, variant)
    batch = next(train_batches(experiment, STEP, rank, world))
    method: Method = experiment.method
    method.after_step(Progress(9, 10))  # schedules are under way
    forward = DistributedDataParallel(method) if world > 1 else method
    forward(batch).loss.backward()
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}, batch.size


def every_variant(rank: int, folder: Path) -> dict[str, tuple[dict[str, Tensor], int]]:
    return {name: gradients(folder, name, rank, WORLD) for name in EVERY}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, tuple[dict[str, Tensor], int]]]:
    """What each rank measured."""
    build_tiny(folder).train_data[0]  # tokenised once, by this process
    build_nano(folder / "nano")
    build_image().train_data[0]
    build_vl(folder / "vl")
    return measure_on_ranks(every_variant, folder)


@pytest.mark.slow
@pytest.mark.parametrize("variant", EVERY)
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
