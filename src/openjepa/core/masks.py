"""Types of masks, shared by maskers, collators and pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Grid = tuple[int, int]  # rows, columns of the patches of an image

TokenMasker = Callable[[Tensor, torch.Generator], Tensor]  # valid [N] bool -> hidden [N] bool, 1 <= hidden < valid


class PatchMask(NamedTuple):
    """Patches of one image in raster order. Context and hidden are disjoint; some patches may be in neither."""

    context: np.ndarray  # [N] bool, what the context encoder reads
    hidden: np.ndarray  # [N] bool, what is to be predicted
    times_hidden: np.ndarray  # [N] uint8, how many hidden blocks contain it: their overlap


PatchMasker = Callable[[Grid, torch.Generator], PatchMask]
