"""Recipes small enough to be built, trained and taken apart in every test: 400 stories, one block, 32 dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.seeding import seed_global
from openjepa.recipes import concept_jepa, i_jepa, lang_jepa, lejepa, nano_jepa, t_jepa, vl_jepa
from openjepa.recipes.baselines import mlm, next_token, simclr, simcse

TINY = (
    "data.documents=400",
    "tokenizer.vocab_size=400",
    "encoder.dim=32",
    "encoder.depth=1",
    "encoder.heads=2",
    "predictor.width=16",
    "predictor.depth=1",
    "predictor.heads=2",
    "train.batch_tokens=0",
    "train.batch_size=15",
    "train.accelerator=cpu",
    "train.precision=32-true",
    "train.workers=0",
)


def build_tiny(
    assets: Path, *overrides: str, recipe: ModuleType = t_jepa, settings: Sequence[str] = TINY
) -> Experiment:
    """The experiment of `settings` and `overrides`, initialised as a run would be."""
    config = recipe.Config.load(overrides=[*settings, *overrides])
    seed_global(config.train.seed, "init")
    return recipe.build(config, BuildContext(assets))


NANO = (
    "data.documents=400",
    "data.eval_fraction=0.2",
    "tokenizer.vocab_size=400",
    "decoder.dim=32",
    "decoder.depth=1",
    "decoder.heads=2",
    "decoder.max_len=96",
    "train.batch_tokens=0",
    "train.batch_size=15",
    "train.accelerator=cpu",
    "train.precision=32-true",
    "train.workers=0",
)


def build_nano(assets: Path, *overrides: str) -> Experiment:
    """nanoJEPA on 400 word problems."""
    return build_tiny(assets, *overrides, recipe=nano_jepa, settings=NANO)


SCENES = (
    "data.images=120",
    "data.size=24",
    "data.eval_fraction=0.2",
    "encoder.patch=4",
    "encoder.dim=32",
    "encoder.depth=1",
    "encoder.heads=2",
    "train.batch_size=15",
    "train.accelerator=cpu",
    "train.precision=32-true",
)
IMAGE = (*SCENES, "predictor.width=16", "predictor.heads=2")
VIEWS = (*SCENES, "local_size=12", "projector.kind=mlp", "projector.width=24", "projector.out_dim=16")


def build_image(*overrides: str) -> Experiment:
    """I-JEPA on 120 scenes of 6 x 6 patches."""
    return build_tiny(Path("unused"), *overrides, recipe=i_jepa, settings=IMAGE)


def build_views(*overrides: str) -> Experiment:
    """LeJEPA on the same scenes."""
    return build_tiny(Path("unused"), *overrides, recipe=lejepa, settings=VIEWS)


def without(settings: Sequence[str], *sections: str) -> tuple[str, ...]:
    """The settings but those of these sections."""
    return tuple(setting for setting in settings if not setting.startswith(sections))


VL = (
    *IMAGE,
    "tokenizer.vocab_size=300",
    "text_encoder.dim=24",
    "text_encoder.depth=1",
    "text_encoder.heads=2",
    "text_encoder.max_len=24",
)


def build_vl(assets: Path, *overrides: str) -> Experiment:
    """The image-text recipe on 120 scenes of 6 x 6 patches and their captions."""
    return build_tiny(assets, *overrides, recipe=vl_jepa, settings=VL)


EVERY_RECIPE: dict[str, tuple[ModuleType, tuple[str, ...]]] = {
    "t_jepa": (t_jepa, TINY),
    "lang_jepa": (lang_jepa, TINY),
    "concept_jepa": (concept_jepa, TINY),
    "nano_jepa": (nano_jepa, NANO),
    "i_jepa": (i_jepa, IMAGE),
    "lejepa": (lejepa, VIEWS),
    "vl_jepa": (vl_jepa, VL),
    "mlm": (mlm, without(TINY, "predictor.")),
    "next_token": (next_token, without(TINY, "predictor.")),
    "simcse": (simcse, without(TINY, "predictor.")),
    "simclr": (simclr, SCENES),
}


def build_recipe(name: str, assets: Path, *overrides: str) -> Experiment:
    """Any of the recipes of the package, as small as above."""
    recipe, settings = EVERY_RECIPE[name]
    return build_tiny(assets, *overrides, recipe=recipe, settings=settings)
