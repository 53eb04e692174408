"""Train the last blocks of a sentence encoder on documents without labels, its similarities held to those of the start.

    python benchmarks/train_last_blocks.py --base path/to/sentence-encoder --data cranfield/ --out trained/
    python benchmarks/bench_adapt.py --base trained/ cranfield/

A trial that `openjepa adapt` has to beat, or lose to: the result is a sentence encoder like any other, which is then
adapted in closed form. Every step takes one sentence of each of some documents (the context) and two others (the
target). Three objectives:

    document  InfoNCE between the whitened sentence and the frozen, whitened latent of its document
    views     InfoNCE between the whitened sentence and the mean of the whitened other two, both trained
    ema       cosine between a predictor of the sentence and the mean of the other two, encoded by an EMA of the
              encoder, with VICReg's variance and covariance of the sentences

plus `--tether` times the mean squared difference between cosines of the step's sentences now and at the start (Park et
al. 2019, relational distillation, of cosines).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from openjepa.adaptation.adapt import source_of
from openjepa.adaptation.adapted import Config
from openjepa.adaptation.documents import texts
from openjepa.adaptation.maps import Whitening
from openjepa.adaptation.statistics import Block, Statistics
from openjepa.core.progress import Progress
from openjepa.core.schedules import constant
from openjepa.data.files.records import Counts
from openjepa.models.target import EMATarget
from openjepa.objectives.contrast import info_nce
from openjepa.objectives.latent import cosine
from openjepa.objectives.regularizers import vicreg

TEMPERATURE = 0.05  # of cosines
MOMENTUM = 0.99
WARMUP_STEPS = 20
OTHERS = 2  # sentences of the target


@dataclass
class Documents:
    """Documents of at least three sentences, with the start's latents."""

    wholes: list[str]
    sentences: list[list[str]]

    @classmethod
    def read(cls, source: str) -> Documents:
        config = source_of(Config.load({}, [f"data={source}"]))
        read = [text for text in texts(config.data, config.title, "sentences", Counts()) if len(text.parts) > OTHERS]
        return cls([text.whole for text in read], [list(text.parts) for text in read])

    def draw(self, size: int, random: np.random.Generator) -> tuple[np.ndarray, list[str], list[str]]:
        """Numbers of documents [B], a sentence of each, and two others of each."""
        numbers = random.choice(len(self.wholes), size, replace=False)
        contexts, targets = [], []
        for number in numbers:
            first, *others = random.permutation(len(self.sentences[number]))[: 1 + OTHERS]
            contexts.append(self.sentences[number][first])
            targets += [self.sentences[number][other] for other in others]
        return numbers, contexts, targets


class Space:
    """The start's whitened space: its statistics and the documents' latents in it."""

    def __init__(self, start: SentenceTransformer, documents: Documents) -> None:
        flat = [sentence for sentences in documents.sentences for sentence in sentences]
        owner = np.repeat(np.arange(len(documents.wholes)), [len(one) for one in documents.sentences])
        latents = start.encode(flat, normalize_embeddings=True).astype(np.float64)
        whitening = Whitening.fitted(Statistics.of(Block(latents, owner)))
        self.mean = torch.from_numpy(whitening.mean).float()  # [D]
        self.matrix = torch.from_numpy(whitening.matrix).float()  # [D, D]
        wholes = torch.from_numpy(start.encode(documents.wholes, normalize_embeddings=True))
        self.documents = self(wholes)  # [N, D]

    def __call__(self, latents: Tensor) -> Tensor:
        return F.normalize((latents - self.mean) @ self.matrix, dim=-1)


def embedded(model: SentenceTransformer, rows: Sequence[str]) -> Tensor:
    """Unit vectors [B, D] with gradients."""
    with torch.autocast(model.device.type, torch.bfloat16):
        return F.normalize(model(model.preprocess(list(rows)))["sentence_embedding"].float(), dim=-1)


def mean_of_others(rows: Tensor) -> Tensor:
    """Unit vectors [B * OTHERS, D] -> [B, D] the unit mean of each document's."""
    return F.normalize(rows.unflatten(0, (-1, OTHERS)).mean(dim=1), dim=-1)


class Predictor(nn.Module):
    """A residual MLP that begins as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: Tensor) -> Tensor:
        return rows + self.out(F.gelu(self.hidden(rows)))


class Objective(NamedTuple):
    """The loss of a step, and the sentences that it has encoded with gradients, which the tether holds."""

    loss: Tensor
    rows: list[str]
    latents: Tensor  # [M, D]


class Trial:
    """An encoder whose last blocks are trained, beside its start."""

    def __init__(self, base: str, documents: Documents, blocks: int) -> None:
        self.documents = documents
        self.start = SentenceTransformer(base, device="cpu").eval().requires_grad_(False)
        self.model = SentenceTransformer(base, device="cpu").eval()  # no dropout: the tether would hold to noise
        self.model.requires_grad_(False)
        self.model[0].auto_model.encoder.layer[-blocks:].requires_grad_(True)
        self.space = Space(self.start, documents)
        self.predictor = Predictor(len(self.space.mean))
        self.target = EMATarget(self.model, constant(MOMENTUM))

    def document(self, numbers: np.ndarray, contexts: list[str], others: list[str]) -> Objective:
        latents = embedded(self.model, contexts)  # [B, D]
        loss = info_nce(self.space(latents), self.space.documents[numbers], TEMPERATURE)
        return Objective(loss, contexts, latents)

    def views(self, numbers: np.ndarray, contexts: list[str], others: list[str]) -> Objective:
        latents = embedded(self.model, contexts)  # [B, D]
        of_others = embedded(self.model, others)  # [B * OTHERS, D]
        loss = info_nce(self.space(latents), mean_of_others(self.space(of_others)), TEMPERATURE)
        return Objective(loss, [*contexts, *others], torch.cat([latents, of_others]))

    def ema(self, numbers: np.ndarray, contexts: list[str], others: list[str]) -> Objective:
        latents = embedded(self.model, contexts)  # [B, D]
        with torch.no_grad():
            goal = mean_of_others(embedded(self.target.module, others))  # [B, D]
        spread = vicreg(latents * latents.shape[1] ** 0.5)  # independent dimensions have a variance of 1 then
        loss = 5 * cosine(self.predictor(latents), goal).mean() + sum(spread.values())
        return Objective(loss, contexts, latents)

    def tether(self, objective: Objective) -> Tensor:
        """Mean squared difference of the cosines among a step's sentences from those of the start."""
        with torch.no_grad():
            before = embedded(self.start, objective.rows)
        now = objective.latents
        return (now @ now.T - before @ before.T).square().mean()

    def fit(self, options: argparse.Namespace, show: Callable[[str], None]) -> SentenceTransformer:
        """Train, and return the encoder."""
        random = np.random.default_rng(options.seed)
        learned = [*(one for one in self.model.parameters() if one.requires_grad), *self.predictor.parameters()]
        optimizer = torch.optim.AdamW(learned, lr=options.lr, weight_decay=0.01)
        objective_of = getattr(self, options.objective)
        began = time.perf_counter()
        for step in range(options.steps):
            rate = options.lr * min(1, (step + 1) / WARMUP_STEPS) * (1 - step / options.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            objective: Objective = objective_of(*self.documents.draw(options.batch, random))
            tether = self.tether(objective)
            (objective.loss + options.tether * tether).backward()
            optimizer.step()
            optimizer.zero_grad()
            self.target.update(self.model, Progress(step, options.steps))
            if step % 20 == 0 or step == options.steps - 1:
                seconds = time.perf_counter() - began
                show(f"step {step}: loss {objective.loss.item():.4f}, tether {tether.item():.6f}, {seconds:.0f} s")
        return self.model


def main(argv: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="a sentence-transformers folder with an encoder like BERT's")
    parser.add_argument("--data", required=True, help="documents: a folder in BEIR's layout, or as data.source")
    parser.add_argument("--out", required=True, type=Path, help="the folder of the trained encoder")
    parser.add_argument("--objective", choices=("document", "views", "ema"), default="document")
    parser.add_argument("--tether", type=float, default=100.0, help="weight of the cosines' difference from the start")
    parser.add_argument("--blocks", type=int, default=2, help="how many of the last blocks are trained")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    trial = Trial(options.base, Documents.read(options.data), options.blocks)
    trial.fit(options, show).save_pretrained(str(options.out), create_model_card=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
