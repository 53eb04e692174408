"""Which sentence was hidden: who knows it is right, who repeats what was seen is not, `less_seen` sees the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Prediction, Retrieval
from openjepa.data.files.readers import Counts
from openjepa.data.text.corpus import TokenRow
from openjepa.data.text.masked import MaskedText
from openjepa.data.text.masked_sentences import MaskedSentencesCollator
from openjepa.data.text.rows import SentenceRows
from openjepa.data.text.sentences import SentencesConfig
from openjepa.data.text.sources import Document
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.evals.alignment import retrieved
from openjepa.evals.suite import evaluate, no_vectors
from openjepa.masking.sentences import SentenceMasker
from openjepa.tasks.sentences import sentence_tasks

D = 64
ANIMALS = ("cat", "dog", "owl", "fox", "hen", "cow", "rat", "bee", "ant", "elk")

Answer = Callable[["Words", MaskedText], Tensor]


class Words(nn.Module):
    """A sentence's latent is the mean of its tokens' random vectors plus `shift`; `answer` makes the predictions."""

    def __init__(self, answer: Answer, shift: float = 0.0) -> None:
        super().__init__()
        self.answer = answer
        self.words = nn.Parameter(torch.randn(300, D, generator=generator_for(0, "words")))
        self.shift = shift * torch.randn(D, generator=generator_for(0, "shift"))

    def sentence_latents(self, batch: MaskedText) -> Tensor:
        return self.all_targets(batch)

    def as_targets(self, latents: Tensor) -> Tensor:
        return latents

    def all_targets(self, batch: MaskedText) -> Tensor:
        words = [self.words[batch.ids[batch.segment == number]] for number in range(len(batch.row))]  # each [L, D]
        return (torch.stack([own.mean(0) for own in words]) + self.shift).detach()

    def predict_from_context(self, batch: MaskedText) -> Tensor:
        return self.answer(self, batch)

    def seen(self, batch: MaskedText) -> Tensor:
        """The mean latent of the visible sentences of its document, for each hidden sentence [M, D]."""
        targets, is_visible = self.all_targets(batch), torch.ones(len(batch.row), dtype=torch.bool)
        is_visible[batch.hidden_segments] = False
        documents = batch.document[batch.hidden_segments].tolist()
        return torch.stack([targets[is_visible & (batch.document == document)].mean(0) for document in documents])


def truth(method: Words, batch: MaskedText) -> Tensor:
    return method.all_targets(batch)[batch.hidden_segments]


def hint(method: Words, batch: MaskedText) -> Tensor:
    """Nearly all of it is what was seen, the rest is right."""
    return 0.9 * method.seen(batch) + 0.1 * truth(method, batch)


@pytest.fixture(scope="module")
def tasks() -> dict[str, Retrieval]:
    tokenizer = train_tokenizer(TokenizerConfig(kind="bytes"), ())
    rows = SentenceRows(tokenizer, SentencesConfig(), max_len=256)
    texts = [" ".join(f"The {ANIMALS[(n + k) % 10]} saw {'z' * (n + 1)}." for k in range(5)) for n in range(20)]
    ids = [
        row
        for found in rows.rows([Document(t, None, f"d{t}", i) for i, t in enumerate(texts)], Counts())
        for row in found
    ]
    two_rows_each = [number // 2 for number in range(len(ids))]  # the document of each row
    corpus = [TokenRow(row, rows.special(row), document) for row, document in zip(ids, two_rows_each, strict=True)]
    found = sentence_tasks(corpus, MaskedSentencesCollator(rows, SentenceMasker("random", 0.5)))
    return {task.name: task for task in found if isinstance(task, Retrieval)}


@pytest.fixture(scope="module")
def skill() -> Prediction:
    """Twelve documents of eight sentences, of which some are hidden."""
    tokenizer = train_tokenizer(TokenizerConfig(kind="bytes"), ())
    rows = SentenceRows(tokenizer, SentencesConfig(), max_len=400)
    texts = [" ".join(f"The {ANIMALS[(n + k) % 10]} saw {'z' * (k + 1)}." for k in range(8)) for n in range(12)]
    made = rows.rows([Document(text, None, f"d{i}", i) for i, text in enumerate(texts)], Counts())
    corpus = [TokenRow(row, rows.special(row), number) for number, found in enumerate(made) for row in found]
    task = sentence_tasks(corpus, MaskedSentencesCollator(rows, SentenceMasker("random", 0.5)))[-1]
    assert isinstance(task, Prediction)
    return task


def skills(task: Prediction, answer: Answer) -> dict[str, float]:
    return {name: float(found.items.mean()) for name, found in task.ask(Words(answer)).items()}  # ty: ignore


def weighted_mean(method: Words, batch: MaskedText) -> Tensor:
    """The mean of the visible sentences of each hidden one's document, weights falling by e over five sentences."""
    targets = method.all_targets(batch)
    visible = torch.ones(len(batch.row), dtype=torch.bool)
    visible[batch.hidden_segments] = False
    distance = (batch.position[batch.hidden_segments][:, None] - batch.position).abs()
    same = visible & (batch.document[batch.hidden_segments][:, None] == batch.document)
    weights = torch.exp(-distance / 5.0) * same
    return weights / weights.sum(1, keepdim=True) @ targets


def test_skill_is_one_for_the_truth_and_none_for_the_mean_of_all_targets(skill: Prediction) -> None:
    assert skills(skill, truth)["sentence_skill"] == pytest.approx(1)
    at_mean = skills(skill, lambda method, batch: truth(method, batch).mean(0).expand(len(batch.hidden_segments), -1))
    assert at_mean["sentence_skill"] == pytest.approx(0, abs=1e-6)


def test_skill_of_the_mean_is_that_of_a_method_which_predicts_it(skill: Prediction) -> None:
    found = skills(skill, weighted_mean)
    assert found["sentence_skill"] == pytest.approx(found["sentence_skill_of_mean"])
    assert found["sentence_skill_of_mixture"] > found["sentence_skill_of_mean"]  # it could be that mean
    answers = skill.ask(Words(truth))  # ty: ignore[invalid-argument-type]
    assert [answer.control for answer in answers.values()] == [False, True, True]
    assert all(answer.groups is not None for answer in answers.values())


def test_a_row_of_several_passages_is_one_document() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="bytes"), ())
    rows = SentenceRows(tokenizer, SentencesConfig(passages=2), max_len=82)
    text = " ".join(f"The {ANIMALS[n % 10]} saw {'z' * (n + 1)}." for n in range(8))
    ids = [row for found in rows.rows([Document(text, None, f"d{i}", i) for i in range(20)], Counts()) for row in found]
    corpus = [TokenRow(row, rows.special(row), number) for number, row in enumerate(ids)]
    tasks = sentence_tasks(corpus, MaskedSentencesCollator(rows, SentenceMasker("random", 0.5)))
    counts = [int((row == tokenizer.sep_id).sum()) for row in ids]
    task = tasks[0]
    assert isinstance(task, Retrieval)
    assert {int(n) for n in (task.pools >= 0).sum(1)} == set(counts)
    first = np.repeat(np.cumsum([0, *counts[:-1]]), counts)  # [C], where each sentence's document begins
    assert all((first[pool[pool >= 0]] == first[pool[0]]).all() for pool in task.pools)
    hidden = set(task.pools[:, 0].tolist())
    copied = task.beside["copy"](Words(truth))  # ty: ignore[invalid-argument-type]
    for question, (own, given) in enumerate(zip(task.pools[:, 0], copied.predicted, strict=True)):
        visible = [n for n in range(len(first)) if first[n] == first[own] and n not in hidden]
        nearest = min(visible, key=lambda n, own=own: (abs(n - own), n))
        assert np.array_equal(given, copied.candidates[nearest]), question


def right(task: Retrieval, method: Words, by: str | None = None) -> np.ndarray:
    """[N] whether each question was answered rightly, by the method or by what is asked beside it."""
    vectors = (task.vectors if by is None else task.beside[by])(method)  # ty: ignore[invalid-argument-type]
    return retrieved(*vectors, task.pools).ranks == 1


def test_the_four_questions(tasks: dict[str, Retrieval]) -> None:
    names = ["sentence_in_document", "sentence_less_seen", "sentence_among_hidden", "sentence_elsewhere"]
    assert list(tasks) == names
    inside = tasks["sentence_in_document"].pools
    assert np.array_equal(inside, tasks["sentence_less_seen"].pools)
    assert inside.shape == (len(inside), 5)
    assert (inside >= 0).all()  # the five sentences of the document
    assert tasks["sentence_elsewhere"].pools.shape == (len(inside), 91)  # all sentences of the nine other documents


def test_who_knows_the_sentence_is_right_everywhere(tasks: dict[str, Retrieval]) -> None:
    for task in tasks.values():
        assert right(task, Words(truth)).all()


def test_who_repeats_what_was_seen_is_never_right_in_the_document(tasks: dict[str, Retrieval]) -> None:
    assert not right(tasks["sentence_in_document"], Words(truth), by="copy").any()


def test_less_seen_finds_what_is_told_beside_what_was_seen(tasks: dict[str, Retrieval]) -> None:
    assert right(tasks["sentence_in_document"], Words(hint)).mean() < 0.5
    assert right(tasks["sentence_less_seen"], Words(hint)).all()


def test_less_seen_does_not_see_what_all_latents_share(tasks: dict[str, Retrieval]) -> None:
    task = tasks["sentence_less_seen"]
    for by in (None, "copy"):
        assert np.array_equal(right(task, Words(hint), by), right(task, Words(hint, shift=30.0), by))


def test_avoid_points_away_from_the_mean_of_the_visible_sentences(tasks: dict[str, Retrieval]) -> None:
    task, method = tasks["sentence_less_seen"], Words(hint)
    plain, centered = tasks["sentence_in_document"].vectors(method), task.vectors(method)  # ty: ignore
    mean = (plain.candidates - centered.candidates)[task.pools[:, 0]]  # [N, D]
    avoiding = task.beside["avoid"](method)  # ty: ignore[invalid-argument-type]
    assert np.allclose(avoiding.predicted, -mean, atol=1e-6)
    plainly = tasks["sentence_in_document"].beside["avoid"](method)  # ty: ignore[invalid-argument-type]
    assert np.allclose(plainly.predicted, -mean, atol=1e-6)
    assert np.array_equal(plainly.candidates, plain.candidates)
    assert np.allclose(plain.predicted, 0.9 * mean + 0.1 * plain.candidates[task.pools[:, 0]], atol=1e-5)


class Numbered(Words):
    """Latents that say which sentence of its document it is, and hardly anything else."""

    def all_targets(self, batch: MaskedText) -> Tensor:
        return 0.01 * super().all_targets(batch) + torch.eye(D)[batch.position]


def test_questions_of_one_document_are_drawn_together(tasks: dict[str, Retrieval]) -> None:
    for task in tasks.values():
        assert task.groups is not None
        assert np.array_equal(task.groups, task.pools[:, 0] // 10)  # two rows of five sentences
        assert all(score.groups is not None for score in evaluate(task, no_vectors, Words(truth), "run").values())  # ty: ignore


def test_position_is_the_mean_of_the_same_number_in_other_documents(tasks: dict[str, Retrieval]) -> None:
    task = tasks["sentence_in_document"]
    candidates, asked = task.vectors(Words(truth)).candidates, task.pools[:, 0]  # ty: ignore[invalid-argument-type]
    by_document = candidates.reshape(10, 2, 5, D)
    for question, guess in zip(asked, task.beside["position"](Words(truth)).predicted, strict=True):  # ty: ignore
        others = np.delete(by_document, question // 10, 0)  # [9, 2, 5, D]
        assert np.allclose(guess, others[:, :, question % 5].mean((0, 1)), atol=1e-5)


def test_position_is_always_right_where_latents_say_nothing_but_their_position(tasks: dict[str, Retrieval]) -> None:
    task = tasks["sentence_in_document"]
    assert right(task, Numbered(truth), by="position").all()
    assert right(task, Words(truth), by="position").mean() < 0.5
