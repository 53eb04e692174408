"""The readout of a run: how much text its latents encode, relative to what the language alone predicts.

Two readouts are trained on the frozen method (`readout.training`) and tested on held-out texts (`readout.scores`), on
targets and on the latents that the method predicts. By default they are trained on targets: a readout of predictions
then works only if these agree with targets.

A run keeps in `readout/`: config.yaml, model.safetensors (the readout trained on the right latents), readout.json.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor

from openjepa.core.atomic import replaced_folder
from openjepa.core.errors import DamageError, UserError
from openjepa.core.experiment import Experiment
from openjepa.core.locate import built_in_recipes, functions_of
from openjepa.core.manifest import require_whole, write_manifest
from openjepa.core.reading import ReadoutSource
from openjepa.core.rundir import write_json
from openjepa.core.seeding import generator_for
from openjepa.core.values import plain, read_yaml
from openjepa.readout.decoder import Readout
from openjepa.readout.scores import compare, examples
from openjepa.readout.training import Fitted, Readings, ReadoutTraining, fit
from openjepa.training import checkpoint

CONFIG = "config.yaml"
RESULTS = "readout.json"


@dataclass(frozen=True)
class LatentReader:
    """A trained readout in use: latents in, texts out."""

    readout: Readout
    decode: Callable[[Sequence[int]], str]

    def texts(
        self, latents: Tensor | np.ndarray, temperature: float = 0.0, top_k: int | None = None, seed: int = 0
    ) -> list[str]:
        """[M, D] -> M texts, greedy; with a `temperature` above 0 drawn, from the `top_k` likeliest tokens if given."""
        rows = torch.as_tensor(latents).to(self.readout.position_embedding.weight)  # [M, D]
        if temperature > 0:
            ids = self.readout.sample(rows, generator_for(seed, "readout sample"), temperature, top_k)
        else:
            ids = self.readout.greedy(rows)
        return [self.decode([token for token in row if token != self.readout.end]) for row in ids.tolist()]


def train_and_judge(
    experiment: Experiment, config: ReadoutTraining, on_step: Callable[[int, float], None] | None = None
) -> tuple[Readout, dict[str, Any]]:
    """Train a readout of an experiment's latents; returns it on the CPU, and its results:

    {"learn_from", "steps", "train_s", "loss", "shuffled_loss" (nats a token, on the last training batch), "texts",
    "measures": see `readout.scores.compare`, "examples": see `readout.scores.examples`}.

    Training uses the device of the experiment's method, whose weights do not change.
    """
    readings = Readings(experiment, config)
    fitted = fit(readings, config, on_step)
    held_out = readings.held_out(config.eval_batches)
    first = next(held_out)
    measures, texts = compare(fitted.readout, fitted.shuffled, chain([first], held_out), readings.readable)
    reader = LatentReader(fitted.readout, readings.readable.decode)
    result = {**_facts(fitted, config), "texts": texts, "measures": measures}
    return fitted.readout.cpu(), {**result, "examples": examples(reader.texts, reader.decode, first)}


def require_readable(experiment: Experiment, recipe: str) -> ReadoutSource:
    """The experiment's readout source. Raises UserError naming the recipes that have one."""
    if experiment.readable is None:
        known = [name for name in built_in_recipes() if "readout_latents" in functions_of(name)]
        raise UserError(f"{recipe} has no latents of texts for a readout; recipes that have some: {', '.join(known)}")
    return experiment.readable


def save(folder: Path, readout: Readout, config: ReadoutTraining, results: dict[str, Any], newest: str) -> None:
    """Write a readout into `folder` atomically, replacing an older one.

    `newest` is the name of the checkpoint whose latents it reads.
    """
    with replaced_folder(folder) as temporary:
        config.dump(temporary / CONFIG, latent_dim=readout.latent_dim, vocab=readout.end, checkpoint=newest)
        save_model(readout, str(temporary / checkpoint.WEIGHTS))
        write_json(temporary / RESULTS, results)
        write_manifest(temporary, temporary.iterdir())


def load(folder: Path, readable: ReadoutSource, newest: str, device: torch.device | str = "cpu") -> LatentReader:
    """Load the readout in `folder`, on a device.

    Raises UserError if there is none, if it is damaged, or if it is older than the newest checkpoint.
    """
    run = folder.parent
    if not (folder / CONFIG).is_file():
        raise UserError(f"{run} has no readout yet; train one: openjepa readout {run}")
    try:
        require_whole(folder)
    except DamageError as error:
        raise UserError(f"{error}; train it again: openjepa readout {run}") from None
    values = plain(read_yaml(folder / CONFIG))
    latent_dim, vocab, step = (values.pop(key) for key in ("latent_dim", "vocab", "checkpoint"))
    if step != newest:
        raise UserError(f"{folder} reads {step}, but the run is at {newest}; train it again: openjepa readout {run}")
    readout = Readout(ReadoutTraining.load(values).decoder, latent_dim, vocab)
    checkpoint.load_weights(folder, readout)
    return LatentReader(readout.eval().to(device), readable.decode)


def _facts(fitted: Fitted, config: ReadoutTraining) -> dict[str, Any]:
    return {
        "learn_from": config.learn_from,
        "steps": config.steps,
        "train_s": round(fitted.train_s, 2),
        "loss": fitted.loss,
        "shuffled_loss": fitted.shuffled_loss,
    }
