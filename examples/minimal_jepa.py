"""A whole joint-embedding predictive architecture in about a hundred lines, on handwritten digits, with plain PyTorch.

An image of 8 x 8 pixels is cut into 16 patches. The student sees half of them. A predictor, told the positions of the
other half, estimates not their pixels but their *latents*: what the teacher, a slow average of the student, makes of
them when it sees the whole image. Besides, what the student makes of the two halves is pulled together, since they show
the same digit, and kept from becoming the same for all digits. No label is used in training.

python examples/minimal_jepa.py
"""

from __future__ import annotations

import copy
import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

PATCH, PATCHES, VISIBLE, DIM = 2, 16, 8, 64
BATCH, LR, EMA = 128, 1e-3, 0.99
TOGETHER, APART = 15.0, 25.0  # weights of the two halves' distance, and of what keeps digits apart
TRAIN = 1200  # images to train on; the other 597 are for testing


class Transformer(nn.Module):
    """Tokens [B, T, D] -> [B, T, D]; every token reads every other."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(DIM, 4, 4 * DIM, 0.0, F.gelu, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(DIM)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Encoder(nn.Module):
    """Patches of pixels, with their positions, to latents. What it is not given it cannot know."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels, self.position = nn.Linear(PATCH * PATCH, DIM), nn.Embedding(PATCHES, DIM)
        self.trunk = Transformer(depth=2)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """patches [B, T, 4], positions [B, T] -> [B, T, D]."""
        return self.trunk(self.pixels(patches) + self.position(positions))


class Predictor(nn.Module):
    """Latents of the visible patches, and the positions of the hidden ones, to latents of the hidden ones."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_token, self.position = nn.Parameter(torch.zeros(DIM)), nn.Embedding(PATCHES, DIM)
        self.trunk, self.out = Transformer(depth=1), nn.Linear(DIM, DIM)

    def forward(self, seen: Tensor, seen_at: Tensor, hidden_at: Tensor) -> Tensor:
        asked = self.mask_token + self.position(
            hidden_at
        )  # [B, H, D]: without the position, all would be one prediction
        x = self.trunk(torch.cat([seen + self.position(seen_at), asked], 1))
        return self.out(x[:, seen_at.shape[1] :])


def take(x: Tensor, positions: Tensor) -> Tensor:
    """x [B, T, D], positions [B, K] -> [B, K, D]."""
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[-1]))


def collapse(z: Tensor) -> Tensor:
    """0 if all dimensions of z [B, D] vary, by at least 1, and apart from each other (VICReg, Bardes et al. 2022)."""
    covariance = torch.cov(z.T)  # [D, D]
    variance = covariance.diagonal()
    hinge = F.relu(1 - (variance + 1e-4).sqrt()).mean()
    return hinge + 0.04 * (covariance.square().sum() - variance.square().sum()) / DIM


def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the singular values of z [N, D]: 1 = all on a line. Source: Roy & Vetterli 2007."""
    p = torch.linalg.svdvals(z - z.mean(0))
    p = p / p.sum()
    return float(torch.exp(-(p * (p + 1e-9).log()).sum()))


@torch.no_grad()
def embed(encoder: Encoder, patches: Tensor) -> Tensor:
    """[N, 16, 4] -> [N, D]: the mean latent of the whole image."""
    return encoder(patches, torch.arange(PATCHES).expand(len(patches), -1)).mean(1)


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    return KNeighborsClassifier(10).fit(train, train_labels).score(test, test_labels)


def main(steps: int = 400) -> dict[str, float]:
    """Train, print, and return the last figures."""
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32) / 8 - 1, torch.tensor(digits.target)
    patches = images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).reshape(-1, PATCHES, PATCH * PATCH)
    student, predictor = Encoder(), Predictor()
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW([*student.parameters(), *predictor.parameters()], lr=LR)

    def knn(vectors: Tensor) -> float:
        return knn_accuracy(vectors[:TRAIN], labels[:TRAIN], vectors[TRAIN:], labels[TRAIN:])

    figures = {"knn pixels": knn(images.flatten(1)), "knn untrained": knn(embed(student, patches))}
    for step in range(steps):
        batch = patches[torch.randint(TRAIN, (BATCH,))]  # [B, 16, 4]
        order = torch.rand(BATCH, PATCHES).argsort(1)  # each image hides patches of its own
        seen_at, hidden_at = order[:, :VISIBLE], order[:, VISIBLE:]
        with torch.no_grad():  # the teacher sees everything; what all images have in common at a position is taken away
            everything = teacher(batch, torch.arange(PATCHES).expand(BATCH, -1))  # [B, 16, D]
            everything = (everything - everything.mean(0)) / (everything.std(0) + 1e-3)
            target = take(everything, hidden_at)  # [B, H, D]
        seen = student(take(batch, seen_at), seen_at)  # [B, V, D]
        predicted = predictor(seen, seen_at, hidden_at)  # [B, H, D]
        prediction = F.smooth_l1_loss(predicted, target)
        halves = seen.mean(1), student(take(batch, hidden_at), hidden_at).mean(1)  # two views of one digit [B, D]
        loss = prediction + TOGETHER * F.mse_loss(*halves) + APART * sum(map(collapse, halves))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 1 - EMA)
        if step % 100 == 0 or step == steps - 1:
            error, spread = (predicted.detach() - target).square().mean(), target.var((0, 1)).mean()
            figures["loss"], figures["skill"] = float(prediction.detach()), 1 - float(error / spread)
            vectors = embed(student, patches)
            figures["rank"], figures["knn"] = effective_rank(vectors[TRAIN:]), knn(vectors)
            print(f"step {step:5d}  " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:2]))
