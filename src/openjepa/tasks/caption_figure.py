"""A picture of what a caption is worth: how well each hidden patch is predicted with it, and with another image's.

    openjepa eval runs/vl --figures

A patch's colour is the cosine of its predicted latent with its target. The wrong caption is that of another held-out
image, and the same patches are hidden, so all that differs between the two maps is the text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from openjepa.core.compute import device_of
from openjepa.core.evaluating import evaluating
from openjepa.core.method import Method
from openjepa.data.captions.batches import CaptionCollator, CaptionedBatch
from openjepa.data.captions.dataset import CaptionedImages, TextKind

SHOWN = 4  # images
GREY = 0.5  # of hidden patches
WORST, BEST = -1.0, 1.0  # of a cosine
WIDTH = 44  # characters of a line of caption


class Told(NamedTuple):
    """Images with one kind of caption."""

    pixels: list[np.ndarray]  # of each image [S, S, 3] uint8
    captions: list[str]
    cosines: np.ndarray  # [B, rows, columns] float, NaN on patches that are shown


@dataclass(frozen=True)
class CaptionFigure:
    """Draws what any method of one experiment makes of the captions of held-out images."""

    held_out: CaptionedImages
    collate: CaptionCollator

    def __call__(self, method: Method, out: Path) -> None:
        """A row for each of the first few images: what is hidden, and the cosines with its caption and with another."""
        numbers = range(min(SHOWN, len(self.held_out)))
        draw(self.told(method, "caption", numbers), self.told(method, "shuffled", numbers), out)

    def told(self, method: Method, text: TextKind, numbers: Sequence[int]) -> Told:
        """These held-out images with their captions, or with others."""
        batch = self.collate.asked(self.held_out.told(text), numbers)
        shown = self.collate.pictures(batch)
        cosines = patch_cosines(method, batch).reshape(len(numbers), *shown[0].grid)
        return Told([picture.pixels for picture in shown], [picture.caption for picture in shown], cosines)


def patch_cosines(method: Method, batch: CaptionedBatch) -> np.ndarray:
    """[B, N] cosine of each hidden patch's predicted latent with its target, in [-1, 1]; NaN where it is not hidden."""
    with evaluating(method):
        latents = method(batch.to(device_of(method))).latents
    assert latents is not None
    found = np.full(batch.hidden.shape, np.nan)
    cosines = torch.cosine_similarity(latents.predicted.float(), latents.target.float(), dim=1)  # [M]
    rows, _ = batch.hidden_valid.nonzero(as_tuple=True)  # [M]
    found[rows.numpy(), batch.hidden_at[batch.hidden_valid].numpy()] = cosines.cpu().numpy()
    return found


def draw(right: Told, wrong: Told, out: Path) -> None:
    """The same images with either caption, as a PNG, PDF or SVG."""
    from matplotlib.figure import Figure

    rows = len(right.pixels)
    figure = Figure(figsize=(9, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    for row, cells in enumerate(axes):
        hidden = ~np.isnan(right.cosines[row])  # [rows, columns]
        extent = (0, 1, 0, 1)
        grey = np.ma.masked_where(~hidden, np.full(hidden.shape, GREY))
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
