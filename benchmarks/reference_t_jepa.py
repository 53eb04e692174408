"""T-JEPA as the original writes it: the yardstick of `bench_step.py`. Plain on purpose; nothing trains with it.

A DistilBERT student reads the text with [MASK] in spans, an EMA teacher reads it clean and in full, and a three-layer
MLP predicts the teacher's latents at the masked positions (mean squared error). As there: fp32, every text cut or
padded to 128 tokens, masks from a Python loop over texts, AdamW with its defaults, EMA from a Python loop over
parameters.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from reference_parts import Padding, follow, padded
from torch import Tensor, nn

LENGTH = 128  # tokens
MOMENTUM = 0.996
MASK_RATIO = 0.4
LONGEST_SPAN = 7  # tokens; 4 on average


class ReferenceTJEPA:
    """One training step over a batch of token rows. `encoder` is a folder with a transformers config."""

    def __init__(self, encoder: Path, pad_id: int, mask_id: int, padding: Padding = "max") -> None:
        from transformers import AutoConfig, AutoModel

        self.pad_id, self.mask_id, self.padding = pad_id, mask_id, padding
        self.student = AutoModel.from_config(AutoConfig.from_pretrained(encoder))
        self.teacher = copy.deepcopy(self.student).eval()
        for parameter in self.teacher.parameters():
            parameter.requires_grad = False
        dim = self.student.config.hidden_size
        self.predictor = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim)
        )
        self.trained = [*self.student.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        self.draw = random.Random(0)
        self.student.train()

    def step(self, texts: Sequence[np.ndarray]) -> Tensor:
        """One optimiser step on the token ids [L_i] of each text; returns which positions were real [B, T]."""
        ids, valid = padded(texts, self.pad_id, LENGTH, self.padding)  # [B, T]
        hidden = torch.zeros_like(ids, dtype=torch.bool)  # [B, T]
        for row, text in zip(hidden, texts, strict=True):
            self.hide_spans(row, min(len(text), LENGTH))
        shown = ids.clone()
        shown[hidden] = self.mask_id
        context = self.student(input_ids=shown, attention_mask=valid).last_hidden_state  # [B, T, D]
        with torch.no_grad():
            target = self.teacher(input_ids=ids, attention_mask=valid).last_hidden_state  # [B, T, D]
        loss = F.mse_loss(self.predictor(context)[hidden], target[hidden])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        follow(self.teacher, self.student, MOMENTUM)
        return valid

    def hide_spans(self, row: Tensor, length: int) -> None:
        """Set random spans of `row` [T] bool until MASK_RATIO of its first `length` positions is hidden."""
        wanted = max(1, int(MASK_RATIO * length))
        hidden = 0
        while hidden < wanted:
            start = self.draw.randrange(length)
            for position in range(start, min(start + self.draw.randint(1, LONGEST_SPAN), length)):
                if not row[position] and hidden < wanted:
                    row[position] = True
                    hidden += 1
