"""A decoder's JEPA in three passes: a yardstick of `bench_step.py`. Plain on purpose; nothing trains with it.

nanoJEPA's description has one masked pass, but its public code returns no mask, so there is no sound original of it to
time. Followed is the public code of the method it builds on, LLM-JEPA, in its default: question and [PRED], the answer,
and both together as language are three rows, each cut or padded to the longest allowed length; transformers' decoder
(GPT-2's here), logits at every position of the language row, AdamW without fusion. fp32, a clipped gradient norm and
last states from a Python loop over rows are nanoJEPA's. Neither has a teacher, so there is no loop over parameters.

Cheaper than there, so that what is gained is not overstated: the answer is read without gradient (nanoJEPA stops it,
LLM-JEPA lets it through), only the language row passes the output head (LLM-JEPA: all three), and there is no dropout,
as in ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from reference_parts import Padding, padded
from torch import Tensor

IGNORED = -100  # label of positions that are asked for nothing


class ReferenceNanoJEPA:
    """One training step over questions and answers.

    `length` is the longest row in tokens, `marks` are the ids of padding, [SEP] and [PRED].
    """

    def __init__(self, layers: int, dim: int, heads: int, vocab: int, length: int, marks: tuple[int, int, int],
                 padding: Padding = "max") -> None:  # fmt: skip
        from transformers import GPT2Config, GPT2LMHeadModel

        self.length, self.padding = length, padding
        self.pad_id, self.sep_id, self.pred_id = marks
        self.model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab,
                n_positions=length,
                n_embd=dim,
                n_layer=layers,
                n_head=heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                use_cache=False,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        self.trained = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        self.model.train()

    def step(self, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Tensor]:
        """One optimiser step on the token ids of each question [Q_i] and answer [A_i].

        Returns which positions of the three passes were real, each [B, T].
        """
        questions = [np.append(question, self.pred_id) for question, _ in rows]
        answers = [answer for _, answer in rows]
        texts = [np.concatenate([question, [self.sep_id], answer]) for question, answer in rows]

        predicted, question_valid = self.last_states(questions)  # [B, D]
        with torch.no_grad():
            target, answer_valid = self.last_states(answers)  # [B, D]
        ids, valid = padded(texts, self.pad_id, self.length, self.padding)  # [B, T]
        logits = self.model(input_ids=ids, attention_mask=valid).logits  # [B, T, V]
        labels = ids.masked_fill(valid == 0, IGNORED)[:, 1:]  # [B, T - 1]
        tokens = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        loss = tokens + (1 - F.cosine_similarity(predicted, target)).mean()

        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        return [question_valid, answer_valid, valid]

    def last_states(self, rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """The decoder's states at each row's last token [B, D], and which positions were real [B, T]."""
        ids, valid = padded(rows, self.pad_id, self.length, self.padding)  # [B, T]
        states = self.model.transformer(input_ids=ids, attention_mask=valid).last_hidden_state  # [B, T, D]
        return torch.stack([state[int(real.sum()) - 1] for state, real in zip(states, valid, strict=True)]), valid
