"""Who may read whom in a row of question, answer and [PRED]: three passes in one, kept apart by the mask alone.

    row        q q q [SEP]  a a  [PRED]  . .          query reads key:  q  a  P  .
    segment    0 0 0   0    1 1    2     3 3          question          causal
    position      0 1 2   3    0 1    4     0 0          answer               causal
                                                      [PRED]            all    self
                                                      padding                    self

Two things decide whether this equals separate passes. The mask: an answer that reads the question, or a [PRED] that
reads the answer, makes the task trivial (and the curves beautiful). The positions: an answer starts at position 0
whatever the length of its question, or the same answer would have another latent in every row. Padding reads itself,
since a softmax over nothing is NaN. Idea of the block mask: LLM-JEPA, Huang et al. 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor

QUESTION, ANSWER, PRED, PADDING = range(4)  # segment ids; [SEP] is the question's last token


def segment_ids(valid: Tensor, hidden: Tensor, pred_at: Tensor | None) -> Tensor:
    """valid, hidden (the answer's tokens) [B, T] bool, position of [PRED] in each row [B] (None: none) -> [B, T].

    int64, one of QUESTION, ANSWER, PRED and PADDING.
    """
    segments = torch.where(hidden, ANSWER, QUESTION)
    if pred_at is not None:
        segments = segments.scatter(1, pred_at[:, None], PRED)
    return segments.masked_fill(~valid, PADDING)


def question_answer_mask(segments: Tensor) -> Tensor:
    """segments [B, T] -> [B, T, T] bool, True where the token of axis 1 may read that of axis 2."""
    query, key = segments[:, :, None], segments[:, None, :]  # [B, T, 1], [B, 1, T]
    at = torch.arange(segments.shape[1], device=segments.device)  # [T]
    earlier, itself = at[:, None] > at[None, :], at[:, None] == at[None, :]  # [T, T]
    within = (query == key) & (query < PRED) & earlier
    return within | ((query == PRED) & (key == QUESTION)) | itself


def question_answer_positions(segments: Tensor) -> Tensor:
    """segments [B, T] -> [B, T] int64 positions: the answer restarts at 0, [PRED] goes on where the question ends."""
    question, answer = segments == QUESTION, segments == ANSWER
    positions = torch.where(question, question.cumsum(1) - 1, 0) + torch.where(answer, answer.cumsum(1) - 1, 0)
    return torch.where(segments == PRED, question.sum(1, keepdim=True), positions)


def next_tokens(segments: Tensor) -> Tensor:
    """segments [B, T] -> [B, T - 1] bool: the token is followed by one of its own block, which it can be asked for."""
    return (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] < PRED)
