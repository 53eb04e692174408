"""The readout of a run: what do its latents still say in words, and how much of that is only the language?

Two readouts are trained on the frozen method (`train.readout`) and asked on held-out texts (`evals.readout`), where
they read targets and the latents that the method predicts. By default they learn from targets: predictions are then
read by someone who never saw one, and have to mean what targets mean.

A run keeps in `readout/`: config.yaml, model.safetensors (the readout that saw the right latents), readout.json.
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
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.core.locate import built_in_recipes, functions_of
from openjepa.core.reading import ReadoutSource
from openjepa.core.rundir import write_json
from openjepa.core.seeding import generator_for
from openjepa.core.values import plain, read_yaml
from openjepa.readout.decoder import Readout
from openjepa.readout.scores import compare, examples
from openjepa.readout.training import Fitted, Readings, ReadoutTraining, fit
from openjepa.training import checkpoint

CONFIG, RESULTS = "config.yaml", "readout.json"


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
    """The readout of an experiment's latents, on the CPU, and its results:

    {"learn_from", "steps", "train_s", "loss", "shuffled_loss" (nats a token, on the last training batch), "texts",
    "measures": see `evals.readout.compare`, "examples": see `evals.readout.examples`}.

    Both learn where the experiment's method is; its weights stay as they were.
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
    """What can be read back. Raises UserError naming the recipes that have something."""
    if experiment.readable is None:
        known = [name for name in built_in_recipes() if "readout_latents" in functions_of(name)]
        raise UserError(f"{recipe} has no latents of texts to read back; recipes that have some: {', '.join(known)}")
    return experiment.readable


def save(folder: Path, readout: Readout, config: ReadoutTraining, results: dict[str, Any], newest: str) -> None:
    """Write `folder` aside and rename it; an older readout in its place is replaced.

    `newest` is the name of the checkpoint whose latents it reads.
    """
    with replaced_folder(folder) as aside:
        config.dump(aside / CONFIG, latent_dim=readout.latent_dim, vocab=readout.end, checkpoint=newest)
        save_model(readout, str(aside / checkpoint.WEIGHTS))
        write_json(aside / RESULTS, results)


def load(folder: Path, readable: ReadoutSource, newest: str, device: torch.device | str = "cpu") -> LatentReader:
    """The readout kept in `folder`, on a device.

    Raises UserError if there is none, or if the run has gone on beyond it.
    """
    run = folder.parent
    if not (folder / CONFIG).is_file():
        raise UserError(f"{run} has no readout yet; train one: openjepa readout {run}")
    values = plain(read_yaml(folder / CONFIG))
    latent_dim, vocab, read = (values.pop(key) for key in ("latent_dim", "vocab", "checkpoint"))
    if read != newest:
        raise UserError(f"{folder} reads {read}, but the run is at {newest}; train it again: openjepa readout {run}")
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
