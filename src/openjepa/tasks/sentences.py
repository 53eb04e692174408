"""Retrieval of hidden sentences, for methods that predict their latents.

Three pools, from hard to easy. `in_document`: every sentence of the same document, the visible ones too, so repeating
a visible sentence is wrong. `among_hidden`: the hidden ones of the document only, so avoiding visible ones is no help.
`elsewhere`: sentences of other documents. The baselines are TF-IDF (the words of the visible sentences), `copy` (the
run's latent of the nearest visible sentence) and `position` (the mean latent of the sentences of the same number in
rows of other documents: position without content).

What continuity alone predicts stands beside them: `mean`, the mean latent of the visible sentences with weights that
fall by e over five sentences, and `mixture`, six such means of different reach, mixed by the six numbers that are best
for the very sentences asked for (least squares, in its favour). `sentence_skill` is that of the run's predictions, and
`sentence_skill_of_...` of these two: 1 - squared error / squared distance from the mean of all targets; 0 = no better
than that mean.

A prediction is partly what all sentences of its document share, and the visible ones are nearest to that. `less_seen`
therefore repeats `in_document` with the mean of the visible sentences' latents subtracted from the prediction and from
every candidate: it measures what is predicted beyond that mean. Pointing away from the mean helps in both without any
knowledge; `avoid` does only this, and is the baseline that a run has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from openjepa.core.compute import device_of
from openjepa.core.evaluating import once_per_method
from openjepa.core.experiment import Sample
from openjepa.core.grouping import group_sums
from openjepa.core.method import Method
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Answers, Prediction, Retrieval, Vectors, pool_table
from openjepa.data.text.corpus import TokenRow
from openjepa.data.text.masked import MaskedText
from openjepa.data.text.masked_sentences import MaskedSentencesCollator
from openjepa.data.text.rows import SentenceRows
from openjepa.models.neighbour_mean import REACHES

ELSEWHERE = 99  # sentences of other documents in a pool
ROWS_AT_ONCE = 64
DOCUMENTS_AT_ONCE = 16
MOST_PASSAGES = 64  # of a whole document
MEAN_REACH = 5.0  # sentences over which a weight of `mean` falls by e
LEAST = 20  # sentences below which a score means nothing


@dataclass(frozen=True)
class _Sentences:
    """All sentences of all rows, in reading order."""

    row: np.ndarray  # [C] int64
    document: np.ndarray  # [C] int64; a long one has several rows
    number: np.ndarray  # [C] int64 within its row
    hidden: np.ndarray  # [C] bool
    texts: list[str]  # C

    def of_row(self, row: int) -> np.ndarray:
        """The sentences of a row, in order."""
        return np.arange(*np.searchsorted(self.row, [row, row + 1]))


def sentence_tasks(
    rows: Any, collate: MaskedSentencesCollator, limit: int = 400, seed: int = 0, whole: bool = False
) -> list[Retrieval | Prediction]:
    """The tasks on the first `limit` rows of a held-out corpus, with masks that are the same for all runs.

    `whole` joins the rows of each document, up to 64 passages of it, whatever the length of a row in training.
    The method needs `predict_from_context(batch)` [M, D] and `all_targets(batch)` [N, D], of the hidden sentences and
    of all, in their order. A task of fewer than 20 sentences is left out.
    """
    samples = _whole(rows, collate.rows, limit) if whole else [rows[i] for i in range(min(limit, len(rows)))]
    seeded = [Sample(sample, generator_for(seed, "sentence tasks", i), i) for i, sample in enumerate(samples)]
    step = DOCUMENTS_AT_ONCE if whole else max(1, ROWS_AT_ONCE // collate.rows.sentences.passages)
    batches = [collate(seeded[start : start + step]) for start in range(0, len(seeded), step)]
    found = _read(batches, [sample.document for sample in samples], collate.rows.tokenizer.decode)
    queries = np.flatnonzero(found.hidden)  # [N], in the order of the predictions
    visible = {row: _visible(found, row) for row in dict.fromkeys(found.row.tolist())}
    contexts = [visible[row] for row in found.row[queries].tolist()]
    pools = {
        "in_document": [_document(found, query, hidden_only=False) for query in queries],
        "among_hidden": [_document(found, query, hidden_only=True) for query in queries],
        "elsewhere": [
            elsewhere(found.texts, found.document, query, generator_for(seed, "elsewhere", int(query)))
            for query in queries
        ],
    }
    nearest = np.array([_nearest_visible(found, query) for query in queries], dtype=np.int64)  # [N]
    answer = _answers(batches)
    continuity = _Continuity(found, queries)
    tasks: list[Retrieval | Prediction] = []
    for name, others in pools.items():
        kept = np.array([i for i, pool in enumerate(others) if len(pool)], dtype=np.int64)
        if len(kept) < LEAST:
            continue
        task = Retrieval(
            name=f"sentence_{name}",
            pools=pool_table([np.concatenate([[queries[i]], others[i]]) for i in kept]),
            vectors=lambda method, kept=kept: _subset(answer(method), kept),
            texts=([contexts[i] for i in kept], found.texts),
            beside={
                "copy": lambda method, kept=kept: _copied(answer(method), nearest[kept]),
                "position": lambda method, kept=kept: _by_position(answer(method), found, queries[kept]),
                "mean": lambda method, kept=kept: _subset(continuity.mean(answer(method)), kept),
                "mixture": lambda method, kept=kept: _subset(continuity.mixture(answer(method)), kept),
            },
            measures=("top1", "mrr") if name == "elsewhere" else ("top1",),
            groups=found.document[queries[kept]],
        )
        tasks += _with_avoid(task, found) if name == "in_document" else [task]
    if len(queries) >= LEAST:
        tasks.append(Prediction("sentence_skill", lambda method: continuity.skills(answer(method))))
    return tasks


class _Continuity:
    """Predictions of the sentences `queries` [N] by means of the visible ones of their row, weighted by distance."""

    def __init__(self, found: _Sentences, queries: np.ndarray) -> None:
        self._queries = queries
        self._documents = found.document[queries]
        self._weights = {reach: _distance_weights(found, queries, reach) for reach in {MEAN_REACH, *REACHES}}

    def mean(self, vectors: Vectors) -> Vectors:
        """By the mean of one reach."""
        return Vectors(self._weights[MEAN_REACH] @ vectors.candidates, vectors.candidates)

    def mixture(self, vectors: Vectors) -> Vectors:
        """By the best mixture of means of all reaches."""
        means = np.stack([self._weights[reach] @ vectors.candidates for reach in REACHES])  # [K, N, D]
        targets = vectors.candidates[self._queries]  # [N, D]
        products = np.einsum("jnd,knd->jk", means, means)
        shares = np.linalg.lstsq(products, np.einsum("knd,nd->k", means, targets))[0]  # [K]
        return Vectors(np.tensordot(shares, means, 1), vectors.candidates)

    def skills(self, vectors: Vectors) -> dict[str, Answers]:
        """Of the predictions, and of both means for comparison."""
        targets = vectors.candidates[self._queries]  # [N, D]
        spread = np.square(targets - targets.mean(axis=0)).sum(axis=1).mean()

        def skill(predicted: np.ndarray, control: bool) -> Answers:
            return Answers(1 - np.square(predicted - targets).sum(axis=1) / spread, 0.0, control, self._documents)

        return {
            "sentence_skill": skill(vectors.predicted, control=False),
            "sentence_skill_of_mean": skill(self.mean(vectors).predicted, control=True),
            "sentence_skill_of_mixture": skill(self.mixture(vectors).predicted, control=True),
        }


def _distance_weights(found: _Sentences, queries: np.ndarray, reach: float) -> sparse.csr_array:
    """Weights exp(-distance / reach) of the visible sentences of each query's row, of sum 1: [N, C]."""
    weights = []
    columns = []
    ends = [0]
    for query in queries:
        same = found.of_row(found.row[query])
        visible = same[~found.hidden[same]]
        distance = np.abs(visible - query)
        weight = np.exp(-(distance - distance.min()) / reach)
        weights.append(weight / weight.sum())
        columns.append(visible)
        ends.append(ends[-1] + len(visible))
    return sparse.csr_array((np.concatenate(weights), np.concatenate(columns), ends), (len(queries), len(found.row)))


@dataclass(frozen=True)
class _VisibleMean:
    """The mean latent of the visible sentences of each document."""

    found: _Sentences
    targets: np.ndarray  # [N] the sentence to retrieve for each item

    def of(self, candidates: np.ndarray) -> np.ndarray:
        """The mean in the document of each sentence, [C, D] -> [C, D]."""
        row = self.found.row  # [C]
        hidden = self.found.hidden  # [C]
        sums, counts = group_sums(candidates[~hidden], row[~hidden], int(row[-1]) + 1)  # [R, D], [R]
        return (sums / counts.clip(1)[:, None])[row]

    def without(self, vectors: Vectors) -> Vectors:
        """Predictions and candidates minus that mean."""
        mean = self.of(vectors.candidates)
        return Vectors(vectors.predicted - mean[self.targets], vectors.candidates - mean)

    def avoid(self, vectors: Vectors) -> Vectors:
        """The baseline that points away from that mean."""
        return Vectors(-self.of(vectors.candidates)[self.targets], vectors.candidates)


def _with_avoid(task: Retrieval, found: _Sentences) -> list[Retrieval]:
    """The task with its baseline `avoid`, and once more with the visible mean subtracted from both sides."""
    mean = _VisibleMean(found, task.pools[:, 0])

    def avoid_less_seen(method: Method) -> Vectors:
        vectors = task.vectors(method)
        return mean.without(Vectors(np.zeros_like(vectors.predicted), vectors.candidates))

    avoid = {"avoid": lambda method: mean.avoid(task.vectors(method))}
    less = {"copy": lambda method: mean.without(task.beside["copy"](method)), "avoid": avoid_less_seen}
    return [
        replace(task, beside={**task.beside, **avoid}),
        replace(
            task, name="sentence_less_seen", vectors=lambda method: mean.without(task.vectors(method)), beside=less
        ),
    ]


def _by_position(vectors: Vectors, found: _Sentences, queries: np.ndarray) -> Vectors:
    """Baseline by a sentence's number in its row: the mean latent of that number in other documents' rows, else 0."""
    everywhere, count = group_sums(vectors.candidates, found.number)  # [P, D], [P]
    _, same = np.unique(np.stack([found.document, found.number]), axis=1, return_inverse=True)
    same = same.ravel()  # [C] of the same number in the same document; only numpy 2.0 keeps an extra axis
    here, same_count = group_sums(vectors.candidates, same)
    number = found.number[queries]  # [N]
    same = same[queries]  # [N]
    others = (count[number] - same_count[same]).clip(1)[:, None]  # [N, 1]
    return Vectors((everywhere[number] - here[same]) / others, vectors.candidates)


def _whole(rows: Any, maker: SentenceRows, limit: int) -> list[TokenRow]:
    """The first `limit` documents of a corpus, each as one row of at most MOST_PASSAGES passages."""
    most = max(1, MOST_PASSAGES // maker.sentences.passages)  # rows
    by_document = groupby((rows[i] for i in range(len(rows))), key=lambda row: row.document)
    documents = [list(islice(document, most)) for _, document in islice(by_document, limit)]
    joined = [maker.whole([row.ids for row in document]) for document in documents]
    return [
        TokenRow(ids, maker.special(ids), document[0].document) for ids, document in zip(joined, documents, strict=True)
    ]


def _read(batches: Sequence[MaskedText], documents: Sequence[int], decode: Callable[[Any], str]) -> _Sentences:
    row = []
    numbers = []
    hidden = []
    texts = []
    first = 0
    for batch in batches:
        is_hidden = set(batch.hidden_segments.tolist())
        for segment, (at, document) in enumerate(zip(batch.row.tolist(), batch.document.tolist(), strict=True)):
            row.append(first + document)
            numbers.append(int(batch.position[segment]))
            hidden.append(segment in is_hidden)
            texts.append(decode(batch.ids[at, batch.segment[at] == segment].tolist()))
        first += int(batch.document[-1]) + 1
    return _Sentences(np.array(row), np.array(documents)[row], np.array(numbers), np.array(hidden), texts)


def _visible(found: _Sentences, row: int) -> str:
    return " ".join(found.texts[i] for i in found.of_row(row) if not found.hidden[i])


def _nearest_visible(found: _Sentences, query: int) -> int:
    """The visible sentence of the same row with the nearest number, the earlier of two."""
    same = found.of_row(found.row[query])
    visible = same[~found.hidden[same]]
    return int(visible[np.abs(visible - query).argmin()])


def _document(found: _Sentences, query: int, hidden_only: bool) -> np.ndarray:
    """The other sentences of the document, without those of the same words."""
    others = (i for i in found.of_row(found.row[query]) if found.hidden[i] or not hidden_only)
    return np.array([i for i in others if found.texts[i] != found.texts[query]], dtype=np.int64)


def elsewhere(texts: Sequence[str], document: np.ndarray, query: int, generator: torch.Generator) -> np.ndarray:
    """Numbers of at most ELSEWHERE sentences of other documents, with other words than the query."""
    order = torch.randperm(len(texts), generator=generator).numpy()
    others = (i for i in order[document[order] != document[query]] if texts[i] != texts[query])
    return np.fromiter(islice(others, ELSEWHERE), dtype=np.int64)


def _answers(batches: Sequence[MaskedText]) -> Callable[[Method], Vectors]:
    """Predictions for the hidden sentences and latents of all sentences, computed once for each method."""

    def answer(method: Any) -> Vectors:
        device = device_of(method)
        predicted: list[Tensor] = []
        candidates: list[Tensor] = []
        for batch in (batch.to(device) for batch in batches):
            candidates.append(method.all_targets(batch))
            predicted.append(method.predict_from_context(batch))
        return Vectors(*(torch.cat(parts).float().cpu().numpy() for parts in (predicted, candidates)))

    return once_per_method(answer)


def _copied(vectors: Vectors, nearest: np.ndarray) -> Vectors:
    return Vectors(vectors.candidates[nearest], vectors.candidates)


def _subset(vectors: Vectors, kept: np.ndarray) -> Vectors:
    return Vectors(vectors.predicted[kept], vectors.candidates)
