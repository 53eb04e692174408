"""T-JEPA that writes down which samples each step reads, to the file that SOAK_KEYS names, for `soak.py`."""

from __future__ import annotations

import json
import os
from typing import Any

from openjepa.core.experiment import BuildContext, Experiment
from openjepa.recipes import t_jepa

Config = t_jepa.Config


def build(config: Any, context: BuildContext) -> Experiment:
    experiment = t_jepa.build(config, context)
    experiment.method.register_forward_pre_hook(_write_keys)
    return experiment


def _write_keys(method: Any, inputs: tuple[Any, ...]) -> None:
    """A line a batch in training: its step and its samples. A killed process loses at most the line it is at."""
    if method.training and (file := os.environ.get("SOAK_KEYS")):
        (batch,) = inputs
        line = json.dumps({"step": batch.progress.step, "draw": batch.draw, "keys": batch.keys.tolist()}) + "\n"
        with open(file, "a", encoding="utf-8") as out:
            out.write(line)
