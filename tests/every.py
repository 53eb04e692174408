"""Every recipe in its main forms, tiny, on generated data: for laws that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from openjepa.core.experiment import Experiment
from tests.tiny import EVERY_RECIPE, build_recipe

FROZEN = ("train_vision=false", "train_text=false", "cache=false")

FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{recipe: (recipe, ()) for recipe in EVERY_RECIPE},
    "lejepa": ("lejepa", ("local_views=2",)),
    "lejepa, vicreg": ("lejepa", ("local_views=0", "regularizer.name=vicreg")),
    "vl_jepa, both directions": ("vl_jepa", ("directions=both",)),
    "vl_jepa, frozen": ("vl_jepa", FROZEN),
}


def _built(recipe: str, settings: tuple[str, ...], assets: Path) -> Experiment:
    return build_recipe(recipe, assets, *settings)


EVERY: dict[str, Callable[[Path], Experiment]] = {
    name: partial(_built, recipe, settings) for name, (recipe, settings) in FORMS.items()
}
