"""Every recipe in its main forms, tiny, on generated data: for laws that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openjepa.core.experiment import Experiment
from openjepa.recipes import lang_jepa
from openjepa.recipes.baselines import mlm, next_token, simclr, simcse
from tests.tiny import SCENES, TINY, build_image, build_nano, build_tiny, build_views, build_vl

ENCODER_ALONE = [setting for setting in TINY if not setting.startswith("predictor.")]
FROZEN = ("train_vision=false", "train_text=false", "cache=false")

EVERY: dict[str, Callable[[Path], Experiment]] = {
    "t_jepa": build_tiny,
    "lang_jepa": lambda assets: build_tiny(assets, recipe=lang_jepa),
    "nano_jepa": build_nano,
    "i_jepa": lambda assets: build_image(),
    "lejepa": lambda assets: build_views("local_views=2"),
    "lejepa, vicreg": lambda assets: build_views("local_views=0", "regularizer.name=vicreg"),
    "vl_jepa": build_vl,
    "vl_jepa, both directions": lambda assets: build_vl(assets, "pairs.directions=both"),
    "vl_jepa, frozen": lambda assets: build_vl(assets, *FROZEN),
    "mlm": lambda assets: build_tiny(assets, recipe=mlm, settings=ENCODER_ALONE),
    "next_token": lambda assets: build_tiny(assets, recipe=next_token, settings=ENCODER_ALONE),
    "simcse": lambda assets: build_tiny(assets, recipe=simcse, settings=ENCODER_ALONE),
    "simclr": lambda assets: build_tiny(assets, recipe=simclr, settings=SCENES),
}
