"""Tasks for methods that predict the answer's latent from the question, on held-out questions.

Every split (what is new: numbers and names, sentences, number ranges) is measured separately:

    _aligned, _mrr, _top1    the predicted latent compared with those of 100 different answers: the right one, others
                             that occur in the split and, where these are too few, in training
    _answer_nearest_top1     exact match: the nearest of *all* answers that occur in training or in the split is right;
                             answers are looked up here, text that is generated from the latent is another measure
    _question_tokens         log-likelihood of the question's tokens in nats a token; perplexity is exp(-x)

TF-IDF gives the answer of the nearest training question, `unigram` the likelihood of tokens by their frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.compute import device_of
from openjepa.core.method import Method
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Answers, Prediction, Retrieval, Task, Vectors
from openjepa.data.questions.dataset import Question
from openjepa.tasks.tfidf import vectorizer

POOL = 100  # answers to choose among, the right one included
MOST_QUESTIONS = 500  # of a split
MOST_WATCHED = 250  # of the first split, at every health check
TFIDF_QUESTIONS = 20_000  # training questions that the baseline searches
CHUNK = 250  # texts read at once


@dataclass(frozen=True)
class QuestionTasks:
    """Makes the tasks of one experiment; the recipe gives the callables, and `train` is read when first needed."""

    name: str  # prefix of all measures
    splits: Callable[[], Mapping[str, Sequence[Question]]]  # held out, by what is new
    train: Callable[[], Sequence[Question]]
    prepare: Callable[[Sequence[str]], Batch]  # questions only
    encode_answers: Callable[[Any, Sequence[str]], Tensor]  # method, A answers -> latents [A, D]
    log_likelihood: Callable[[Any, Any], Tensor]  # method, questions only -> [B] nats a token
    tokens: Callable[[Sequence[str]], list[np.ndarray]]  # questions to token ids, with [SEP]
    vocab: int

    def all(self) -> list[Task]:
        """Every measure of every split."""
        return [task for split, items in self.splits().items() for task in self._of(split, items[:MOST_QUESTIONS])]

    def watched(self) -> Retrieval:
        """A part of the first split, to be scored at every health check."""
        split, questions = next(iter(self.splits().items()))
        return self._retrieval(f"{self.name}-{split}", questions[:MOST_WATCHED], POOL)

    def _of(self, split: str, questions: Sequence[Question]) -> list[Task]:
        name = f"{self.name}-{split}"
        everything = self._retrieval(f"{name}_answer_nearest", questions, None)
        return [
            self._retrieval(name, questions, POOL),
            replace(everything, measures=("top1",)),
            self._likelihood(f"{name}_question_tokens", [question.question for question in questions]),
        ]

    def _retrieval(self, name: str, questions: Sequence[Question], pool: int | None) -> Retrieval:
        """Retrieve the answer of each question among `pool` answers (None = all)."""
        split = {question.answer for question in questions}
        train = {question.answer for question in self.train()}
        answers = sorted(split) + sorted(train - split)  # [C]
        number = {answer: n for n, answer in enumerate(answers)}
        texts = [question.question for question in questions]

        def vectors(method: Method) -> Vectors:
            predicted = torch.cat([method.embed(self._batch(method, part)) for part in chunks(texts)])
            candidates = torch.cat([self.encode_answers(method, part) for part in chunks(answers)])
            return Vectors(predicted.float().cpu().numpy(), candidates.float().cpu().numpy())

        pools = draw_pools([number[question.answer] for question in questions], len(split), len(answers), pool)
        return Retrieval(name, pools, vectors, baselines={"tfidf": lambda: self._looked_up(texts, number)})

    def _batch(self, method: Method, texts: Sequence[str]) -> Batch:
        return self.prepare(texts).to(device_of(method))

    def _looked_up(self, texts: Sequence[str], number: Mapping[str, int]) -> Vectors:
        """One-hot vectors of the answers to the nearest training questions."""
        train = self.train()[:TFIDF_QUESTIONS]
        nearest = nearest_texts([question.question for question in train], texts)
        one_hot = np.eye(len(number))
        return Vectors(one_hot[[number[train[i].answer] for i in nearest]], one_hot)

    def _likelihood(self, name: str, texts: Sequence[str]) -> Prediction:
        uniform = -math.log(self.vocab)

        def ask(method: Method) -> dict[str, Answers]:
            found = torch.cat([self.log_likelihood(method, self._batch(method, part)) for part in chunks(texts)])  # [N]
            return {name: Answers(found.cpu().double().numpy(), uniform)}

        def unigram() -> dict[str, Answers]:
            counts = np.ones(self.vocab)  # [V], add-one smoothing
            for ids in self.tokens([question.question for question in self.train()]):
                np.add.at(counts, ids, 1)
            logs = np.log(counts / counts.sum())
            found = [logs[ids[1:]].mean() for ids in self.tokens(texts)]  # the first token follows none
            return {name: Answers(np.array(found), uniform)}

        return Prediction(name, ask, {"unigram": unigram})


def draw_pools(right: Sequence[int], near: int, total: int, size: int | None) -> np.ndarray:
    """[N] candidate numbers of the right answers -> pools [N, K] of different candidates, the right one first.

    The others are drawn without repetition from the candidates below `near`, and from the rest up to `total` only if
    these are too few. K = `size`, or fewer if there are fewer; None = all.
    """
    width = total if size is None else min(size, total)
    generator = generator_for(0, "answer pools")
    pools = np.empty((len(right), width), dtype=np.int64)  # [N, K]
    for pool, target in zip(pools, right, strict=True):
        first = torch.randperm(near, generator=generator)
        rest = torch.randperm(total - near, generator=generator)
        order = torch.cat([first, near + rest]).numpy()  # [total]
        pool[0] = target
        pool[1:] = order[order != target][: width - 1]
    return pools


def nearest_texts(corpus: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """[N] number of the text of `corpus` that is nearest to each of `texts`, by cosine of TF-IDF."""
    words = vectorizer()
    known = words.fit_transform(corpus)  # [M, V] unit rows
    return np.concatenate([(words.transform(part) @ known.T).toarray().argmax(1) for part in chunks(texts)])


def chunks(items: Sequence[str]) -> list[Sequence[str]]:
    """The items in order, CHUNK at a time."""
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
