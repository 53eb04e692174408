"""A JEPA in plain PyTorch on random words: sound as it stands, and with one defect planted in it where a test asks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.experiment import Experiment, Sample
from openjepa.core.method import Inspection, Latents, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.models.target import Frozen
from openjepa.objectives.regularizers import sigreg

WORDS, LENGTH, DIM, RATIO, EMA, ROWS = 50, 12, 16, 0.4, 0.99, 15


@dataclass(kw_only=True)
class Words(Batch):
    """Texts of 6 to LENGTH words."""

    ids: Tensor  # [B, T] int64
    valid: Tensor  # [B, T] bool, False on padding
    hidden: Tensor  # [B, T] bool
    keeps_hidden: bool = False  # defect: with_other_hidden changes nothing

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        other = torch.randint(WORDS, self.ids.shape, generator=generator)
        return replace(self, ids=torch.where(self.hidden & (not self.keeps_hidden), other, self.ids))


def hide(valid: Tensor, generator: torch.Generator) -> Tensor:
    """valid [T] -> hidden [T]: RATIO of the real words."""
    count = int(valid.sum())
    chosen = torch.randperm(count, generator=generator)[: round(RATIO * count)]
    return torch.zeros_like(valid).index_fill(0, chosen, True)


def collate(rows: Sequence[Sample], masker: Callable[[Tensor, torch.Generator], Tensor] = hide) -> Words:
    ids = nn.utils.rnn.pad_sequence([row.sample for row in rows], batch_first=True)  # [B, T]
    lengths = torch.tensor([len(row.sample) for row in rows])  # [B]
    valid = torch.arange(ids.shape[1]) < lengths[:, None]  # [B, T]
    hidden = torch.stack([masker(one, row.generator) for one, row in zip(valid, rows, strict=True)])  # [B, T]
    return Words(keys=torch.tensor([row.index for row in rows]), ids=ids, valid=valid, hidden=hidden)


class Encoder(nn.Module):
    """ids [B, T] -> [B, T, D]: each word at its position, with the mean of those that may be read [B, T]."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(WORDS, DIM), nn.Embedding(LENGTH, DIM)
        self.mix, self.drop = nn.Linear(DIM, DIM), nn.Dropout(dropout)

    def forward(self, ids: Tensor, read: Tensor) -> Tensor:
        x = self.word(ids) + self.position(torch.arange(ids.shape[1]))  # [B, T, D]
        return x + self.drop(F.gelu(self.mix(mean(x, read))))[:, None]


def mean(x: Tensor, read: Tensor) -> Tensor:
    """x [B, T, D], read [B, T] -> [B, D]."""
    return x.masked_fill(~read[..., None], 0).sum(1) / read.sum(1, keepdim=True)


class StubJEPA(Method[Words]):
    """Predicts the teacher's latents of hidden words from the mean of the visible ones and from their positions."""

    def __init__(self, defect: str = "", dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.defect = defect
        self.student = Encoder(dropout).requires_grad_(defect != "frozen student")
        teacher = copy.deepcopy(self.student).requires_grad_(defect == "trained teacher").eval()
        self.teacher = Frozen(teacher) if defect == "fixed teacher" else teacher  # the latter is none: it says so
        self.predictor, self.position = nn.Linear(DIM, DIM), nn.Embedding(LENGTH, DIM)
        self.idle = nn.Linear(DIM, DIM) if defect == "idle part" else None
        self.register_buffer("steps", torch.zeros(()))

    def predict_from_context(self, batch: Words) -> Tensor:
        seen = batch.valid if self.defect == "leak" else batch.valid & ~batch.hidden  # [B, T]
        context = mean(self.student(batch.ids, seen), seen)  # [B, D]
        rows, positions = batch.hidden.nonzero(as_tuple=True)  # [M]
        where = positions * (self.defect != "no positions")
        predicted = self.predictor(context)[rows] + self.position(where)  # [M, D]
        return predicted + torch.rand_like(predicted) if self.defect == "noise" else predicted

    def targets(self, batch: Words) -> Tensor:
        if self.defect == "student as target":
            return self.student(batch.ids, batch.valid)[batch.hidden]  # [M, D], with its graph
        return self.teacher(batch.ids, batch.valid)[batch.hidden]

    def forward(self, batch: Words) -> StepOutput:
        predicted, target = self.predict_from_context(batch), self.targets(batch)  # [M, D]
        handed_out = target if self.defect == "student as target" else target.detach()
        spread = F.relu(1 - (predicted.var(0) + 1e-4).sqrt()).mean()
        terms = {"prediction": F.smooth_l1_loss(predicted, target), "variance": spread}
        if self.defect == "detached term":
            terms["variance"] = spread.detach()
        elif self.defect == "infinite term":
            terms["variance"] = spread * 0 + torch.inf
        elif self.defect == "term of rows":
            terms["prediction"] = F.smooth_l1_loss(predicted, target, reduction="none").mean(1)  # [M]
        elif self.defect == "nan gradient":
            terms["variance"] = spread + (self.student.mix.weight.sum() * 0).sqrt()
        elif self.defect == "unit vectors":
            terms |= sigreg(F.normalize(predicted, dim=-1), batch.draw)
        elif self.defect == "no term":
            terms = {}
        shown = not (self.defect == "no latents" and not self.training)
        return StepOutput(terms, Latents(predicted, handed_out) if shown else None)

    def inspect(self, batch: Words) -> Inspection:
        rows, positions = batch.hidden.nonzero(as_tuple=True)
        return Inspection(rows, positions)

    def embed(self, batch: Words) -> Tensor:
        read = torch.ones_like(batch.valid) if self.defect == "reads padding" else batch.valid
        vectors = mean(self.student(batch.ids, read), read)  # [B, D]
        return vectors[1:] if self.defect == "loses a row" else vectors

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        self.steps += 1
        if self.defect not in ("forgotten teacher", "fixed teacher"):
            for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.lerp_(theirs, 1 - EMA)


def build_stub(defect: str = "", masker: Callable[[Tensor, torch.Generator], Tensor] = hide, **more) -> Experiment:
    """The stub on 60 texts, in batches of ROWS."""
    generator = generator_for(0, "stub")
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (60,), generator=generator).tolist()
    texts = [torch.randint(WORDS, (length,), generator=generator) for length in lengths]
    return Experiment(
        method=StubJEPA(defect, **more),
        train_data=texts,
        eval_data=texts,
        collate=partial(collate, masker=masker),
        embedding=Embedding(collate),
        train=TrainConfig(batch_size=ROWS, steps=10),
        mask_ratio=RATIO,
    )
