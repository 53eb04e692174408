"""Checkpoints: weights as safetensors and the optimiser's state, written to a temporary folder and renamed.

A folder `step-000500` is either complete or does not exist, and its manifest tells whether it still is what was
written: a damaged one is passed over for the one before it, with a warning. Since batches, masks and dropout are
addressed by step, the weights, the optimiser and the step number are all of the state: a resumed run equals an
uninterrupted one bit for bit. A run on streamed data also saves its position in the stream, so that it need not read it
again; and between two log lines a run saves the sums for the next one.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import FiniteFloat
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from openjepa.core.atomic import replaced_file, replaced_folder
from openjepa.core.errors import DamageError, UserError, first_line
from openjepa.core.json_files import Number, Whole, Written, read_json
from openjepa.core.manifest import read_manifest, require_whole, write_manifest
from openjepa.core.remarks import remark
from openjepa.data.loading.loader import Bookmark
from openjepa.training.finite import require_finite_weights

WEIGHTS = "model.safetensors"
STATE = "state.pt"
BOOKMARK = "bookmark.json"
BEST = "best.json"
WINDOW = "window.json"  # sums for the next log line
LR_FACTOR = "lr_factor.json"  # factor of the learning rate, of a run that was rolled back
NAME = re.compile(r"step-\d+", re.ASCII)  # of a checkpoint; other names are none of ours
DAMAGED = "damaged-"  # before the name of a checkpoint that was passed over when its run was resumed


class BookmarkFile(Written):
    """A `Bookmark` in JSON."""

    draw: Whole
    epoch: Whole
    offset: list[Whole] | None


class WindowFile(Written):
    """What a window keeps, in JSON; see `training.window`."""

    totals: dict[str, Number]
    norm_max: Number
    span_s: FiniteFloat


_known_whole: dict[Path, tuple[int, int]] = {}  # weights that were verified: modification time (ns) and size
_reported: set[Path] = set()  # damaged checkpoints, and what is none, that were warned of in this process


def save(
    folder: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    bookmark: Bookmark | None = None,
    window: Mapping[str, Any] | None = None,
    lr_factor: float = 1.0,
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
        if lr_factor != 1.0:
            (temporary / LR_FACTOR).write_text(json.dumps(lr_factor) + "\n")
        write_manifest(temporary, temporary.iterdir())
    return final


def save_weights(folder: Path, step: int, method: nn.Module) -> Path:
    """Write a checkpoint of weights alone, which cannot be resumed, atomically and return it.

    Raises NonFinite, and writes nothing, if a weight is NaN or infinite.
    """
    require_finite_weights(method, step)
    final = folder / f"step-{step:06d}"
    with replaced_folder(final) as temporary:
        save_model(method, str(temporary / WEIGHTS))
        write_manifest(temporary, temporary.iterdir())
    return final


def load(checkpoint: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore both in place and return the number of finished steps. Raises UserError as `load_weights` does."""
    load_weights(checkpoint, method)
    try:
        state = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise UserError(f"{checkpoint / STATE} cannot be loaded into this optimizer: {reason}") from error
    return int(state["step"])


def load_bookmark(checkpoint: Path) -> Bookmark | None:
    """The run's position in its stream; None if its data is not streamed."""
    file = checkpoint / BOOKMARK
    if not file.exists():
        return None
    values = read_json(file, BookmarkFile)
    return Bookmark(values["draw"], values["epoch"], values["offset"] and tuple(values["offset"]))


def load_window(checkpoint: Path) -> dict[str, Any]:
    """The run's sums for its next log line (`training.window`); empty if it had just written one."""
    file = checkpoint / WINDOW
    return read_json(file, WindowFile) if file.exists() else {}


def load_lr_factor(checkpoint: Path) -> float:
    """The factor of the learning rate that the run was at; 1 if it was never rolled back."""
    file = checkpoint / LR_FACTOR
    return float(read_json(file, FiniteFloat)) if file.exists() else 1.0


def load_weights(checkpoint: Path, method: nn.Module) -> None:
    """Restore weights only. Raises UserError if the file is damaged or belongs to another configuration."""
    try:
        load_model(method, str(checkpoint / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = first_line(error)
        raise UserError(f"{checkpoint / WEIGHTS} cannot be loaded into this method: {reason}") from error


def weights_digest(path: Path) -> str:
    """The checksum of a checkpoint's weights: two runs in one folder, one after the other, differ in it."""
    return read_manifest(path)[WEIGHTS][0]


def finished(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first. What else has a name like theirs is left out, and said."""
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and path.is_dir()]
    for other in {*folder.glob("step-*")} - {*found, *_reported}:
        remark(f"{other} is no checkpoint, and left out")
        _reported.add(other)
    return sorted(found, key=step_of)


def newest(folder: Path) -> Path:
    """The latest checkpoint whose weights are what was written; a warning names those that are passed over.

    Raises UserError if there is none.
    """
    checkpoints = finished(folder)
    if not checkpoints:
        raise UserError(f"no checkpoint in {folder}; the run stopped before its first one")
    return _newest_whole(checkpoints, [WEIGHTS])


def newest_resumable(folder: Path) -> Path | None:
    """The latest checkpoint of which every file is what was written; None if there is no checkpoint at all.

    Later ones, which are damaged, are renamed, so that training can write them again. Raises UserError if all are.
    """
    checkpoints = finished(folder)
    if not checkpoints:
        return None
    found = _newest_whole(checkpoints, None)
    for damaged in checkpoints[checkpoints.index(found) + 1 :]:
        aside = folder / f"{DAMAGED}{damaged.name}"
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(damaged, aside)
    return found


def newest_step(folder: Path) -> int:
    """Finished steps of the newest checkpoint."""
    return step_of(newest(folder))


def _newest_whole(checkpoints: Sequence[Path], files: Sequence[str] | None) -> Path:
    """The last of these whose `files` (None = all of them) are what was written. Raises UserError if none is."""
    problems: dict[Path, str] = {}
    for path in reversed(checkpoints):
        try:
            _require_whole(path, files)
        except DamageError as error:
            problems[path] = str(error)
            continue
        for damaged in problems.keys() - _reported:
            remark(f"{problems[damaged]}; {path} is used instead of {damaged}")
        _reported.update(problems)
        return path
    raise UserError(f"{problems[checkpoints[-1]]}, and no checkpoint before it is whole; train the run again")


def _require_whole(path: Path, files: Sequence[str] | None) -> None:
    """Raises DamageError. Weights that were verified in this process, and not touched since, are not read again."""
    weights = path / WEIGHTS
    state = (weights.stat().st_mtime_ns, weights.stat().st_size) if weights.is_file() else None
    if files == [WEIGHTS] and state is not None and _known_whole.get(weights) == state:
        return
    require_whole(path, files)
    if state is not None:
        _known_whole[weights] = state


def mark_best(folder: Path, step: int, score: float) -> None:
    """Note that the checkpoint of `step` has the best health so far."""
    with replaced_file(folder / BEST) as temporary:
        temporary.write_text(json.dumps({"step": step, "score": score}) + "\n")


def best_score(folder: Path) -> float:
    """The health score of the best checkpoint; -inf if none is marked."""
    marked = _marked(folder)
    return -math.inf if marked is None else marked[1]


def best(folder: Path) -> Path:
    """The checkpoint with the best health, or the newest one if none is marked."""
    return _marked_path(folder) or newest(folder)


def _marked_path(folder: Path) -> Path | None:
    marked = _marked(folder)
    path = None if marked is None else folder / f"step-{marked[0]:06d}"
    return path if path is not None and path.is_dir() else None


def _marked(folder: Path) -> tuple[int, float] | None:
    """Step and score of the best checkpoint; None if none is marked, or the mark is damaged."""
    try:
        values = json.loads((folder / BEST).read_text(encoding="utf-8"))
        return int(values["step"]), float(values["score"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest checkpoints and the best one, and damaged ones that were written again."""
    checkpoints = finished(folder)
    kept = {_marked_path(folder), *checkpoints[-keep:]}
    for path in checkpoints:
        if path not in kept:
            shutil.rmtree(path)
        shutil.rmtree(folder / f"{DAMAGED}{path.name}", ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """Finished steps of a checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))
