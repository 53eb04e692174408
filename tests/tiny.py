"""A T-JEPA small enough to be built, trained and taken apart in every test: 400 stories, one block, 32 dimensions."""

from __future__ import annotations

from pathlib import Path

from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.seeding import seed_global
from openjepa.recipes import t_jepa

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
)


def build_tiny(assets: Path, *overrides: str) -> Experiment:
    """The experiment of TINY and `overrides`, initialised as a run would be."""
    config = t_jepa.Config.load(overrides=[*TINY, *overrides])
    seed_global(config.train.seed, "init")
    return t_jepa.build(config, BuildContext(assets))
