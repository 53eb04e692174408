"""Train the last blocks of a sentence encoder on documents without labels, its similarities held to those of the start.

    python benchmarks/train_last_blocks.py --base path/to/sentence-encoder --data cranfield/ --out trained/
    python benchmarks/bench_adapt.py --base path/to/sentence-encoder --against trained/ cranfield/

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
MOST_WORDS = 50  # of a sentence that is trained on


@dataclass
class Documents:
    """Documents of at least three sentences."""

    wholes: list[str]
    sentences: list[str]  # of all of them, in their order
    owner: np.ndarray  # [S] the document of each sentence

    @classmethod
    def read(cls, source: str) -> Documents:
        config = source_of(Config.load({}, [f"data={source}"]))
        read = [text for text in texts(config.data, config.title, "sentences", Counts()) if len(text.parts) > OTHERS]
        owner = np.repeat(np.arange(len(read)), [len(text.parts) for text in read])
        return cls([text.whole for text in read], [part for text in read for part in text.parts], owner)

    def draw(self, size: int, random: np.random.Generator) -> Drawn:
        numbers = random.choice(len(self.wholes), size, replace=False)
        starts = np.searchsorted(self.owner, numbers)
        counts = np.searchsorted(self.owner, numbers, side="right") - starts
        chosen = [random.permutation(count)[: 1 + OTHERS] for count in counts]
        sentences = starts[:, None] + np.stack(chosen)  # [B, 1 + OTHERS]
        return Drawn(numbers, sentences[:, 0], sentences[:, 1:].flatten())


class Drawn(NamedTuple):
    """What a step reads: B documents, and by their numbers a sentence of each, and OTHERS others of each."""

    documents: np.ndarray  # [B]
    contexts: np.ndarray  # [B]
    others: np.ndarray  # [B * OTHERS]


class Space:
    """The start's latents of all sentences, its whitened space, and the documents in that."""

    def __init__(self, start: SentenceTransformer, documents: Documents) -> None:
        latents = start.encode(documents.sentences, normalize_embeddings=True)  # [S, D]
        block = Block(latents.astype(np.float64), documents.owner)
        whitening = Whitening.fitted(Statistics.of(block))
        self.start = torch.from_numpy(latents)  # [S, D]
        self.mean = torch.from_numpy(whitening.mean).float()  # [D]
        self.matrix = torch.from_numpy(whitening.matrix).float()  # [D, D]
        self.documents = self(torch.from_numpy(start.encode(documents.wholes, normalize_embeddings=True)))  # [N, D]

    def __call__(self, latents: Tensor) -> Tensor:
        return F.normalize((latents - self.mean) @ self.matrix, dim=-1)


def mean_of_others(rows: Tensor) -> Tensor:
    """Unit vectors [B * OTHERS, D] -> [B, D] the unit mean of each document's."""
    return F.normalize(rows.unflatten(0, (-1, OTHERS)).mean(dim=1), dim=-1)


class Predictor(nn.Module):
    """A residual MLP that begins as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(2 * dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: Tensor) -> Tensor:
        return rows + self.out(F.gelu(self.hidden(rows)))


class Objective(NamedTuple):
    """The loss of a step, and the sentences that it has encoded with gradients, which the tether holds."""

    loss: Tensor
    sentences: np.ndarray  # [M]
    latents: Tensor  # [M, D]


class Trial:
    """An encoder whose last blocks are trained, beside its start."""

    def __init__(self, base: str, documents: Documents, blocks: int) -> None:
        self.documents = documents
        self.model = SentenceTransformer(base, device="cpu").eval()  # no dropout: the tether would hold to noise
        self.space = Space(self.model, documents)
        self.model.requires_grad_(False)
        self.model[0].auto_model.encoder.layer[-blocks:].requires_grad_(True)
        self.predictor = Predictor(len(self.space.mean))
        self.target = EMATarget(self.model, constant(MOMENTUM))

    def embedded(self, sentences: np.ndarray, by: nn.Module | None = None) -> Tensor:
        """Unit vectors [M, D] of sentences [M], by the model that is trained or by another one."""
        rows = [" ".join(self.documents.sentences[number].split()[:MOST_WORDS]) for number in sentences]
        inputs = self.model.preprocess(rows)
        with torch.autocast(self.model.device.type, torch.bfloat16):
            latents = (self.model if by is None else by)(inputs)["sentence_embedding"]
        return F.normalize(latents.float(), dim=-1)

    def document(self, drawn: Drawn) -> Objective:
        latents = self.embedded(drawn.contexts)  # [B, D]
        loss = info_nce(self.space(latents), self.space.documents[drawn.documents], TEMPERATURE)
        return Objective(loss, drawn.contexts, latents)

    def views(self, drawn: Drawn) -> Objective:
        latents = self.embedded(drawn.contexts)  # [B, D]
        of_others = self.embedded(drawn.others)  # [B * OTHERS, D]
        loss = info_nce(self.space(latents), mean_of_others(self.space(of_others)), TEMPERATURE)
        return Objective(loss, np.r_[drawn.contexts, drawn.others], torch.cat([latents, of_others]))

    def ema(self, drawn: Drawn) -> Objective:
        latents = self.embedded(drawn.contexts)  # [B, D]
        with torch.no_grad():
            goal = mean_of_others(self.embedded(drawn.others, self.target.module))  # [B, D]
        spread = vicreg(latents * latents.shape[1] ** 0.5)  # independent dimensions have a variance of 1 then
        loss = 5 * cosine(self.predictor(latents), goal).mean() + sum(spread.values())
        return Objective(loss, drawn.contexts, latents)

    def tether(self, objective: Objective) -> Tensor:
        """Mean squared difference of the cosines among a step's sentences from those of the start."""
        before = self.space.start[objective.sentences]
        now = objective.latents
        return (now @ now.T - before @ before.T).square().mean()

    def fit(self, options: argparse.Namespace, show: Callable[[str], None]) -> SentenceTransformer:
        """Train, and return the encoder."""
        random = np.random.default_rng(options.seed)
        learned = [*(one for one in self.model.parameters() if one.requires_grad), *self.predictor.parameters()]
        optimizer = torch.optim.AdamW(learned, lr=options.lr, weight_decay=0.01)
        objective_of: Callable[[Drawn], Objective] = getattr(self, options.objective)
        began = time.perf_counter()
        for step in range(options.steps):
            rate = options.lr * min(1, (step + 1) / WARMUP_STEPS) * (1 - step / options.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            objective = objective_of(self.documents.draw(options.batch, random))
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
