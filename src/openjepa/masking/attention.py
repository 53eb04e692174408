"""The attention mask of a row of question, answer and [PRED]: three passes in one, separated only by the mask.

    row        q q q [SEP]  a a  [PRED]  . .          query reads key:  q  a  P  .
    segment    0 0 0   0    1 1    2     3 3          question          causal
    position      0 1 2   3    0 1    4     0 0          answer               causal
                                                      [PRED]            all    self
                                                      padding                    self

Two things make this equal separate passes. The mask: an answer that attends to the question, or a [PRED] that attends
to the answer, makes the task trivial. The positions: an answer starts at position 0 whatever the length of its
question, or the same answer would have another latent in every row. Padding attends to itself, since a softmax over
nothing is NaN. Source of the block mask: LLM-JEPA, Huang et al. 2025.
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
    """segments [B, T] -> [B, T, T] bool, True where the token of axis 1 may attend to that of axis 2."""
    query = segments[:, :, None]  # [B, T, 1]
    key = segments[:, None, :]  # [B, 1, T]
    position = torch.arange(segments.shape[1], device=segments.device)  # [T]
    earlier = position[:, None] > position[None, :]  # [T, T]
    itself = position[:, None] == position[None, :]  # [T, T]
    within = (query == key) & (query < PRED) & earlier
    return within | ((query == PRED) & (key == QUESTION)) | itself


def row_mask(valid: Tensor) -> Tensor:
    """valid [B, T] -> [B, T, T] bool as above for the row as one text: causal, the answer reads its question."""
    position = torch.arange(valid.shape[1], device=valid.device)  # [T]
    past = position[:, None] >= position[None, :]  # [T, T]
    itself = position[:, None] == position[None, :]  # [T, T]
    return (past & valid[:, None, :]) | itself


def question_answer_positions(segments: Tensor) -> Tensor:
    """segments [B, T] -> [B, T] int64 positions: the answer restarts at 0, [PRED] continues after the question."""
    question = segments == QUESTION
    answer = segments == ANSWER
    positions = torch.where(question, question.cumsum(1) - 1, 0) + torch.where(answer, answer.cumsum(1) - 1, 0)
    return torch.where(segments == PRED, question.sum(1, keepdim=True), positions)
