"""Contrastive losses: identify the other view of an input, or the target of a prediction, among candidates.

Negatives do not depend on the number of devices: views are those of all ranks (`core.distributed.gather_rows`), and the
candidates of a prediction belong to its document.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from openjepa.core.compute import in_fp32
from openjepa.core.config import BaseConfig
from openjepa.core.distributed import mean_over_ranks
from openjepa.core.progress import Progress
from openjepa.core.schedules import late

Similarity = Literal["cosine", "product"]
TEMPERATURE: dict[Similarity, float] = {"cosine": 0.1, "product": 1.0}  # of `LateContrast`


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Unit vectors [B, D], [B, D] -> scalar: mean -log softmax of the true pair among all B, in nats; log B = chance.

    Source: Gao et al. 2021, eq. 4; van den Oord et al. 2018.
    """
    with in_fp32(first.device):
        similar = first.float() @ second.float().T / temperature  # [B, B]
    return F.cross_entropy(similar, torch.arange(len(first), device=first.device))


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Unit vectors [B, D], [B, D] -> scalar in nats: each of the 2 B views has to identify its other one.

    Views of the same side are negatives too, unlike in `info_nce`; log(2 B - 1) = chance.

    Source: Chen et al. 2020, eq. 1.
    """
    views = torch.cat([first, second]).float()  # [2 B, D]
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    with in_fp32(views.device):
        similar = (views @ views.T / temperature).masked_fill(itself, -torch.inf)  # [2 B, 2 B]
    return F.cross_entropy(similar, torch.arange(len(views), device=views.device).roll(len(first)))


def similarities(predicted: Tensor, pool: Tensor, kind: Similarity) -> Tensor:
    """Similarities [M, N] of predictions [M, D] with candidates [N, D]: cosines, or x . y / D.

    What all candidates of a prediction share adds the same product to each, so a softmax is invariant to it; in a
    cosine it takes a share of the prediction's length from what distinguishes them.
    """
    predicted = predicted.float()
    pool = pool.float()
    with in_fp32(predicted.device):
        if kind == "product":
            return predicted @ pool.T / pool.shape[1]
        return F.normalize(predicted, dim=-1) @ F.normalize(pool, dim=-1).T


def candidate_info_nce(similar: Tensor, answer: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """InfoNCE of similarities [M, N], for targets at `answer` [M] among `candidates` [M, N] bool -> [M] in nats.

    -log softmax of the target's similarity among all candidates'; 0 is perfect, the log of their number is chance.
    It rewards distinguishing similar candidates, which a distance hardly does: their differences have little variance.
    Source: van den Oord et al. 2018, eq. 4, with similarities over a temperature.
    """
    return F.cross_entropy((similar / temperature).masked_fill(~candidates, -torch.inf), answer, reduction="none")


class ContrastConfig(BaseConfig):
    """A contrast of predictions with the other candidates of their document."""

    weight: float = Field(0.0, ge=0)
    """of the contrast at the end of the run, beside the prediction loss; 0 = none"""
    similarity: Similarity = "cosine"
    """cosine (over 0.1), or product: the term is then invariant to what a document's sentences share"""
    start: float = Field(0.5, ge=0, lt=1)
    """part of the run from which that weight grows: earlier, predictions only learn to differ from the visible part"""


class LateContrast:
    """InfoNCE among the sentences of a document, with a weight that grows late in the run."""

    def __init__(self, config: ContrastConfig) -> None:
        self.similarity: Similarity = config.similarity
        self.schedule = late(config.weight, config.start)

    def weight(self, progress: Progress) -> float:
        """The term's weight at this point of the run; 0 = no term yet."""
        return self.schedule(progress)

    def __call__(
        self, predicted: Tensor, candidates: Tensor, answer: Tensor, document: Tensor, progress: Progress
    ) -> Tensor:
        """predicted [M, D], `answer` [M] = the number of each one's target among `candidates` [N, D] -> scalar.

        A prediction is compared with the candidates of its `document` [N].
        """
        similar = similarities(predicted, candidates, self.similarity)  # [M, N]
        same_document = document[answer][:, None] == document  # [M, N]
        losses = candidate_info_nce(similar, answer, same_document, TEMPERATURE[self.similarity])  # [M]
        return self.weight(progress) * mean_over_ranks(losses)
