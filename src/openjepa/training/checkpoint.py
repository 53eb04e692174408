"""Checkpoints: weights as safetensors and the optimiser's state, written to a temporary folder and renamed.

A folder `step-000500` is either complete or does not exist. Since batches, masks and dropout are addressed by step, the
weights, the optimiser and the step number are all of the state: a resumed run equals an uninterrupted one bit for bit.
A run on streamed data also saves its position in the stream, so that it need not read it again; and between two log
lines a run saves the sums for the next one.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from openjepa.core.atomic import replaced_folder
from openjepa.core.errors import UserError
from openjepa.data.loading.loader import Bookmark

WEIGHTS, STATE, BOOKMARK, BEST = "model.safetensors", "state.pt", "bookmark.json", "best.json"
WINDOW = "window.json"  # sums for the next log line


def save(
    folder: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    bookmark: Bookmark | None = None,
    window: Mapping[str, Any] | None = None,
) -> Path:
    """Write `folder/step-<step>` atomically and return it."""
    final = folder / f"step-{step:06d}"  # exists only after a crash between the rename and the next log line
    with replaced_folder(final) as temporary:
        save_model(method, str(temporary / WEIGHTS))
        torch.save({"step": step, "optimizer": optimizer.state_dict()}, temporary / STATE)
        if bookmark is not None:
            (temporary / BOOKMARK).write_text(json.dumps(asdict(bookmark)) + "\n")
        if window:
            (temporary / WINDOW).write_text(json.dumps(window) + "\n")
    return final


def save_weights(folder: Path, step: int, method: nn.Module) -> Path:
    """Write a checkpoint of weights alone, which cannot be resumed, atomically and return it."""
    final = folder / f"step-{step:06d}"
    with replaced_folder(final) as temporary:
        save_model(method, str(temporary / WEIGHTS))
    return final


def load(checkpoint: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore both in place and return the number of finished steps. Raises UserError as `load_weights` does."""
    load_weights(checkpoint, method)
    try:
        state = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint / STATE} cannot be loaded into this optimizer: {reason}") from error
    return int(state["step"])


def load_bookmark(checkpoint: Path) -> Bookmark | None:
    """The run's position in its stream; None if its data is not streamed."""
    file = checkpoint / BOOKMARK
    if not file.exists():
        return None
    values = json.loads(file.read_text())
    return Bookmark(values["draw"], values["epoch"], values["offset"] and tuple(values["offset"]))


def load_window(checkpoint: Path) -> dict[str, Any]:
    """The run's sums for its next log line (`training.window`); empty if it had just written one."""
    file = checkpoint / WINDOW
    return json.loads(file.read_text()) if file.exists() else {}


def load_weights(checkpoint: Path, method: nn.Module) -> None:
    """Restore weights only. Raises UserError if the file is damaged or belongs to another configuration."""
    try:
        load_model(method, str(checkpoint / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint / WEIGHTS} cannot be loaded into this method: {reason}") from error


def finished(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(folder.glob("step-*"), key=_step_of)


def newest(folder: Path) -> Path:
    """The latest checkpoint. Raises UserError if there is none."""
    checkpoints = finished(folder)
    if not checkpoints:
        raise UserError(f"no checkpoint in {folder}; the run stopped before its first one")
    return checkpoints[-1]


def newest_step(folder: Path) -> int:
    """Finished steps of the newest checkpoint."""
    return _step_of(newest(folder))


def mark_best(folder: Path, step: int, score: float) -> None:
    """Note that the checkpoint of `step` has the best health so far."""
    tmp = folder / f".{BEST}.tmp"
    tmp.write_text(json.dumps({"step": step, "score": score}) + "\n")
    os.replace(tmp, folder / BEST)


def best_score(folder: Path) -> float:
    """The health score of the best checkpoint; -inf if none is marked."""
    file = folder / BEST
    return float(json.loads(file.read_text())["score"]) if file.exists() else -math.inf


def best(folder: Path) -> Path:
    """The checkpoint with the best health, or the newest one if none is marked."""
    if (folder / BEST).exists():
        step = json.loads((folder / BEST).read_text())["step"]
        if (path := folder / f"step-{step:06d}").is_dir():
            return path
    return newest(folder)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest checkpoints and the best one."""
    kept = {best(folder), *finished(folder)[-keep:]}
    for path in finished(folder):
        if path not in kept:
            shutil.rmtree(path)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
