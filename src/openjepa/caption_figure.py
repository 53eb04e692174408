"""A picture of what a caption is worth: how well each hidden patch is predicted with it, and with another image's.

    run = openjepa.load("runs/vl")
    draw_captions(run, "captions.png")

A patch's colour is the cosine of its predicted latent with its target. The wrong caption is that of another held-out
image, and the same patches are hidden, so all that differs between the two maps is the text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment, Row
from openjepa.core.method import Method
from openjepa.core.seeding import generator_for
from openjepa.data.caption_batches import CaptionCollator, CaptionedBatch
from openjepa.data.captions import CaptionedImages, TextKind

SHOWN = "0.5"  # grey of hidden patches
WORST, BEST = -1.0, 1.0  # of a cosine
WIDTH = 44  # characters of a line of caption


class Told(NamedTuple):
    """Images with one kind of caption."""

    pixels: list[np.ndarray]  # of each image [S, S, 3] uint8
    captions: list[str]
    cosines: np.ndarray  # [B, rows, columns] float, NaN on patches that are shown


def patch_cosines(method: Method, batch: CaptionedBatch) -> np.ndarray:
    """[B, N] cosine of each hidden patch's predicted latent with its target, in [-1, 1]; NaN where it is not hidden."""
    with evaluating(method):
        latents = method(batch).latents
    assert latents.rows is not None
    assert latents.places is not None
    found = np.full(batch.hidden.shape, np.nan)
    cosines = torch.cosine_similarity(latents.predicted.float(), latents.target.float(), dim=1)  # [M]
    found[latents.rows.cpu().numpy(), latents.places.cpu().numpy()] = cosines.cpu().numpy()
    return found


def told(experiment: Experiment, text: TextKind, numbers: Sequence[int]) -> Told:
    """These held-out images with their captions, or with others. Raises UserError for a recipe without captions."""
    data, collate = experiment.eval_data, experiment.collate
    if not isinstance(data, CaptionedImages) or not isinstance(collate, CaptionCollator):
        raise UserError("there are no captions to compare: the run's recipe is not vl_jepa")
    images = data.told(text)
    batch = collate([Row(images[i], generator_for(0, "captions", i), i) for i in numbers])
    shown = collate.pictures(batch)
    cosines = patch_cosines(experiment.method, batch).reshape(len(numbers), *shown[0].grid)
    return Told([picture.pixels for picture in shown], [picture.caption for picture in shown], cosines)


def draw_captions(run: Any, out: str | Path, numbers: Sequence[int] = (0, 1, 2, 3)) -> None:
    """A PNG or PDF with a row for each of these held-out images: what is hidden, right caption, wrong caption."""
    from matplotlib.figure import Figure

    right, wrong = (told(run.experiment, text, numbers) for text in ("caption", "shuffled"))
    figure = Figure(figsize=(9, 3.2 * len(numbers)), layout="constrained")
    axes = figure.subplots(len(numbers), 3, squeeze=False)
    for row, cells in enumerate(axes):
        hidden = ~np.isnan(right.cosines[row])  # [rows, columns]
        extent = (0, 1, 0, 1)
        grey = np.ma.masked_where(~hidden, np.full(hidden.shape, float(SHOWN)))
        for cell, one, title in zip(cells, (None, right, wrong), ("hidden", "its caption", "another"), strict=True):
            cell.imshow(right.pixels[row], extent=extent)
            if one is None:
                cell.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent)
                cell.set_title(title, fontsize=8)
            else:
                heat = cell.imshow(one.cosines[row], cmap="RdYlGn", vmin=WORST, vmax=BEST, extent=extent)
                caption = textwrap.fill(one.captions[row], WIDTH)
                cell.set_title(f"{title}: mean cosine {np.nanmean(one.cosines[row]):.2f}\n{caption}", fontsize=8)
            cell.set_axis_off()
    figure.colorbar(heat, ax=axes, shrink=0.5, label="cosine of predicted and target latent")
    figure.savefig(out, dpi=120)
