"""LANG-JEPA as the original writes it: a yardstick of `bench_step.py`. Plain on purpose; nothing trains with it.

Its description (I-JEPA for sentences, smooth L1 in concept space) leaves the step open; followed is the step of its
public code. Every hidden sentence is a sample of its own, a pair of texts: its context through the student, the
sentence through the EMA teacher, one encoder row each. So the same context is encoded once per sentence asked of it.
As there: fp32, both texts tokenised on the way to the step, rows cut at the longest allowed length and padded to the
longest of their batch (`padding="max"` pads all to the former, as an earlier collator of theirs did), targets and
predictions of unit length, smooth L1, AdamW without fusion, EMA from a Python loop over parameters.

Not as there, so that both sides do the same job: the context is the document's visible sentences (there: up to eight
before the target), sentences are hidden in the same share as ours, and the predictor has the sizes of ours and is told
which sentence it is asked for (there: one attention layer with a learned query, told nothing).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from reference_parts import Padding, follow, padded
from torch import Tensor, nn

MOMENTUM = 0.996


@dataclass(frozen=True)
class Sizes:
    """Longest row in tokens, and the predictor's sizes."""

    length: int
    width: int
    depth: int
    heads: int


class Predictor(nn.Module):
    """A narrow transformer over the context and one query, which is told the number of its sentence."""

    def __init__(self, dim: int, sizes: Sizes) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, sizes.width)
        self.position = nn.Embedding(sizes.length, sizes.width)
        self.query = nn.Parameter(0.02 * torch.randn(sizes.width))
        block = nn.TransformerEncoderLayer(
            sizes.width, sizes.heads, 4 * sizes.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, sizes.depth, nn.LayerNorm(sizes.width), enable_nested_tensor=False)
        self.leave = nn.Linear(sizes.width, dim)

    def forward(self, context: Tensor, valid: Tensor, numbers: Tensor) -> Tensor:
        """context [M, T, D], valid [M, T], numbers of the sentences [M] -> [M, D]."""
        seen = self.enter(context) + self.position(torch.arange(context.shape[1]))  # [M, T, W]
        query = self.query + self.position(numbers)  # [M, W]
        padding = F.pad(valid == 0, (0, 1))  # [M, T + 1], the query is no padding
        return self.leave(self.blocks(torch.cat([seen, query[:, None]], 1), src_key_padding_mask=padding)[:, -1])


class ReferenceLangJEPA:
    """One training step over documents. `encoder` is a folder with a transformers config, `encode` tokenises texts."""

    def __init__(self, encoder: Path, encode: Callable[[Sequence[str]], Sequence[np.ndarray]], pad_id: int,
                 sizes: Sizes, hidden_share: float, padding: Padding = "batch") -> None:  # fmt: skip
        from transformers import AutoConfig, AutoModel

        self.encode, self.pad_id = encode, pad_id
        self.length, self.hidden_share, self.padding = sizes.length, hidden_share, padding
        self.student = AutoModel.from_config(AutoConfig.from_pretrained(encoder))
        self.teacher = copy.deepcopy(self.student).eval()
        for parameter in self.teacher.parameters():
            parameter.requires_grad = False
        self.predictor = Predictor(self.student.config.hidden_size, sizes)
        self.trained = [*self.student.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        self.draw = random.Random(0)
        self.student.train()

    def step(self, documents: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """One optimiser step on documents, each a list of 2 or more sentences.

        Returns which positions of the rows were real: of the contexts and of the hidden sentences, each [M, T].
        """
        contexts, sentences, numbers = self.pairs(documents)
        ids, valid = self.tokenized(contexts)  # [M, T]
        sentence_ids, sentence_valid = self.tokenized(sentences)  # [M, S]
        with torch.no_grad():
            latents = self.teacher(input_ids=sentence_ids, attention_mask=sentence_valid).last_hidden_state  # [M, S, D]
            target = F.normalize(mean(latents, sentence_valid), dim=-1)  # [M, D]
        context = self.student(input_ids=ids, attention_mask=valid).last_hidden_state  # [M, T, D]
        predicted = F.normalize(self.predictor(context, valid, torch.tensor(numbers)), dim=-1)  # [M, D]
        loss = F.smooth_l1_loss(predicted, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        follow(self.teacher, self.student, MOMENTUM)
        return valid, sentence_valid

    def pairs(self, documents: Sequence[Sequence[str]]) -> tuple[list[str], list[str], list[int]]:
        """For every hidden sentence its context, itself, and its number in the document."""
        contexts, sentences, numbers = [], [], []
        for document in documents:
            count = len(document)
            share = min(max(1, round(self.hidden_share * count)), count - 1)
            hidden = sorted(self.draw.sample(range(count), share))
            visible = " ".join(sentence for number, sentence in enumerate(document) if number not in hidden)
            contexts += [visible] * len(hidden)
            sentences += [document[number] for number in hidden]
            numbers += hidden
        return contexts, sentences, numbers

    def tokenized(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return padded(self.encode(texts), self.pad_id, self.length, self.padding)


def mean(latents: Tensor, valid: Tensor) -> Tensor:
    """latents [M, T, D], valid [M, T] -> [M, D] mean over the real positions."""
    weight = valid[..., None].float()  # [M, T, 1]
    return (latents * weight).sum(1) / weight.sum(1)
