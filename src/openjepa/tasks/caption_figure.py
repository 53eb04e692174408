"""Figure of the gain from captions: how well each hidden patch is predicted with its caption, and with another.

    openjepa eval runs/vl --figures

A patch's colour is the cosine of its predicted latent with its target. The wrong caption is that of another held-out
image, and the same patches are hidden, so the two maps differ only in the text.
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
# of a cosine
WORST = -1.0
BEST = 1.0
WIDTH = 44  # characters of a line of caption


class CaptionCosines(NamedTuple):
    """Images with one kind of caption, and the cosines of their predictions."""

    pixels: list[np.ndarray]  # of each image [S, S, 3] uint8
    captions: list[str]
    cosines: np.ndarray  # [B, rows, columns] float, NaN on patches that are not hidden


@dataclass(frozen=True)
class CaptionFigure:
    """Draws the effect of captions of held-out images on the predictions of a method."""

    held_out: CaptionedImages
    collate: CaptionCollator

    def __call__(self, method: Method, out: Path) -> None:
        """Draw a row for each of the first images: hidden patches, and cosines with its caption and with another."""
        numbers = range(min(SHOWN, len(self.held_out)))
        draw(self.cosines(method, "caption", numbers), self.cosines(method, "shuffled", numbers), out)

    def cosines(self, method: Method, text: TextKind, numbers: Sequence[int]) -> CaptionCosines:
        """Predict these held-out images with their captions, or with others."""
        batch = self.collate.eval_batch(self.held_out.with_captions(text), numbers)
        pictures = self.collate.pictures(batch)
        cosines = patch_cosines(method, batch).reshape(len(numbers), *pictures[0].grid)
        pixels = [picture.pixels for picture in pictures]
        return CaptionCosines(pixels, [picture.caption for picture in pictures], cosines)


def patch_cosines(method: Method, batch: CaptionedBatch) -> np.ndarray:
    """[B, N] cosine of each hidden patch's predicted latent with its target, in [-1, 1]; NaN where it is not hidden."""
    with evaluating(method):
        latents = method(batch.to(device_of(method))).latents
    assert latents is not None
    by_patch = np.full(batch.hidden.shape, np.nan)  # [B, N]
    cosines = torch.cosine_similarity(latents.predicted.float(), latents.target.float(), dim=1)  # [M]
    rows, _ = batch.hidden_valid.nonzero(as_tuple=True)  # [M]
    by_patch[rows.numpy(), batch.hidden_at[batch.hidden_valid].numpy()] = cosines.cpu().numpy()
    return by_patch


def draw(right: CaptionCosines, wrong: CaptionCosines, out: Path) -> None:
    """Draw the same images with either caption, as a PNG, PDF or SVG."""
    from matplotlib.figure import Figure

    rows = len(right.pixels)
    figure = Figure(figsize=(9, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    for row, cells in enumerate(axes):
        hidden = ~np.isnan(right.cosines[row])  # [rows, columns]
        extent = (0, 1, 0, 1)
        grey = np.ma.masked_where(~hidden, np.full(hidden.shape, GREY))
        for cell, cosines, title in zip(cells, (None, right, wrong), ("hidden", "its caption", "another"), strict=True):
            cell.imshow(right.pixels[row], extent=extent)
            if cosines is None:
                cell.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent)
                cell.set_title(title, fontsize=8)
            else:
                heat = cell.imshow(cosines.cosines[row], cmap="RdYlGn", vmin=WORST, vmax=BEST, extent=extent)
                caption = textwrap.fill(cosines.captions[row], WIDTH)
                cell.set_title(f"{title}: mean cosine {np.nanmean(cosines.cosines[row]):.2f}\n{caption}", fontsize=8)
            cell.set_axis_off()
    figure.colorbar(heat, ax=axes, shrink=0.5, label="cosine of predicted and target latent")
    figure.savefig(out, dpi=120)
