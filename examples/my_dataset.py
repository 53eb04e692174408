"""Data of another kind, noisy waves: a data set, a batch, a collate function and a method of one's own.

    openjepa check examples/my_dataset.py         openjepa train examples/my_dataset.py

A wave of 48 values is cut into 12 pieces of 4. Some pieces are hidden; their latents are predicted from the others.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

import openjepa.recipe as oj

PIECES, WIDTH, DIM = 12, 4, 32


class Config(oj.BaseConfig):
    """Everything that defines a run."""

    waves: int = 2000
    """training waves; a tenth as many are held out"""
    hidden: int = 4
    """neighbouring pieces that are hidden of each wave"""
    momentum: oj.MomentumConfig = oj.MomentumConfig()
    regularizer: oj.RegularizerConfig = oj.RegularizerConfig(covariance=1.0)
    train: oj.TrainConfig = oj.TrainConfig(steps=600, lr=3e-3)


class Waves(torch.utils.data.Dataset):
    """Item i is a wave [48] of a random frequency and phase: the same one at every call."""

    def __init__(self, first, count):
        self.first, self.count = first, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.wave(self.first + index)[0]

    @staticmethod
    def wave(number):
        """The wave [48], and which of 8 frequencies it has."""
        random = np.random.default_rng(number)
        frequency, phase = random.integers(8), random.uniform(0, 2 * np.pi)
        time = np.linspace(0, 1, PIECES * WIDTH)
        values = np.sin(2 * np.pi * (1 + frequency) * time + phase) + 0.1 * random.normal(size=len(time))
        return values.astype(np.float32), int(frequency)


@dataclass(kw_only=True)
class WaveBatch(oj.Batch):
    """Waves in pieces. `valid` and `hidden` [B, N] are what `check` and `masks` look at in every batch."""

    pieces: torch.Tensor  # [B, N, W]
    valid: torch.Tensor  # [B, N] bool, all True: every wave is as long
    hidden: torch.Tensor  # [B, N] bool
    visible_at: torch.Tensor  # [B, V] int64, positions of the visible pieces
    hidden_at: torch.Tensor  # [B, H] int64, positions of the hidden ones
    all_at: torch.Tensor  # [B, N] int64

    def with_other_hidden(self, generator):
        other = torch.randn(self.pieces.shape, generator=generator).to(self.pieces)  # [B, N, W]
        return replace(self, pieces=torch.where(self.hidden[..., None], other, self.pieces))


def to_batch(waves, hidden, keys):
    """Waves [48], which pieces of each are hidden [B, N] (equally many), and their numbers in the data set."""
    order = hidden.long().argsort(dim=1, stable=True)  # [B, N], visible ones first
    visible = PIECES - int(hidden[0].sum())
    return WaveBatch(
        keys=torch.tensor(keys),
        pieces=torch.from_numpy(np.stack(waves)).view(-1, PIECES, WIDTH),
        valid=torch.ones_like(hidden),
        hidden=hidden,
        visible_at=order[:, :visible],
        hidden_at=order[:, visible:],
        all_at=torch.arange(PIECES).expand_as(hidden).contiguous(),
    )


class PieceEncoder(nn.Module):
    """A small transformer over some pieces of a wave."""

    def __init__(self):
        super().__init__()
        self.enter, self.position = nn.Linear(WIDTH, DIM), nn.Embedding(PIECES, DIM)
        layer = nn.TransformerEncoderLayer(DIM, 4, 4 * DIM, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(DIM), enable_nested_tensor=False)

    def forward(self, pieces, at):
        """The pieces [B, N, W] at positions [B, K] -> their latents [B, K, D]."""
        return self.layers(self.enter(oj.gather_positions(pieces, at)) + self.position(at))


class WaveJEPA(oj.Method[WaveBatch]):
    def __init__(self, config):
        super().__init__()
        self.student = PieceEncoder()
        self.teacher = oj.EMATarget(self.student, config.momentum.schedule())
        self.predictor = oj.build_predictor(oj.PredictorConfig(width=DIM, heads=4), DIM, DIM, PIECES)
        self.distance = oj.build_objective("smooth_l1")
        self.regularize = oj.TwoViews(config.regularizer)

    def encode_context(self, batch):
        return self.student(batch.pieces, batch.visible_at)  # [B, V, D]; hidden pieces are not read

    def predict(self, batch, context):
        shown, asked = torch.ones_like(batch.visible_at).bool(), torch.ones_like(batch.hidden_at).bool()
        return self.predictor(context, batch.visible_at, shown, None, batch.hidden_at, asked).flatten(0, 1)  # [M, D]

    def predict_from_context(self, batch):
        return self.predict(batch, self.encode_context(batch))

    def forward(self, batch):
        latents = oj.gather_positions(self.teacher(batch.pieces, batch.all_at), batch.hidden_at).flatten(0, 1)  # [M, D]
        target = oj.make_targets(oj.TargetConfig(norm="standardize"), [latents])
        context = self.encode_context(batch)
        predicted = self.predict(batch, context)
        terms = {"prediction": self.distance(predicted, target)}
        terms |= self.regularize(context.mean(1), None, batch.draw)
        return oj.StepOutput(terms, self.distance.latents(predicted, target))

    def embed(self, batch):
        return self.student(batch.pieces, batch.all_at).mean(1)  # [B, D]

    def inspect(self, batch):
        rows, positions = batch.hidden.nonzero().unbind(1)  # [M]
        return oj.Inspection(rows=rows, positions=positions)

    def after_step(self, progress):
        self.teacher.update(self.student, progress)


def build(config, context):
    def collate(rows):
        hidden = torch.zeros(len(rows), PIECES, dtype=torch.bool)
        for mask, row in zip(hidden, rows, strict=True):  # masks are drawn from the generator of their row
            first = int(torch.randint(PIECES - config.hidden + 1, (), generator=row.generator))
            mask[first : first + config.hidden] = True
        return to_batch([row.sample for row in rows], hidden, [row.index for row in rows])

    def whole(waves):
        """Waves that a user gives, with nothing hidden, for embedding."""
        return to_batch(waves, torch.zeros(len(waves), PIECES, dtype=torch.bool), list(range(len(waves))))

    def tasks():
        labelled = [Waves.wave(10**6 + number) for number in range(600)]
        named = [(wave, f"{frequency + 1} Hz") for wave, frequency in labelled]
        return [oj.classification("frequency", named[:400], named[400:])]

    return oj.Experiment(
        method=WaveJEPA(config),
        train_data=Waves(0, config.waves),
        eval_data=Waves(config.waves, max(64, config.waves // 10)),
        collate=collate,
        embedding=oj.Embedding(whole),
        train=config.train,
        tasks=tasks,
        baselines={"values": np.stack},
    )
