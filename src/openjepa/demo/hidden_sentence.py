"""Prediction of a hidden sentence of a paragraph, and the sentences nearest to it.

The prediction is compared with the latents of the paragraph's sentences, including the hidden one, and of the sentences
of held-out documents, which also give the cosines of unrelated sentences. Targets may be relative to their batch
(`objectives.targets.standardize`), so a paragraph is read in a batch of 64 documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Sample
from openjepa.core.seeding import generator_for
from openjepa.data.text.corpus import TokenRow
from openjepa.data.text.masked import MaskedText
from openjepa.data.text.masked_sentences import MaskedSentencesCollator
from openjepa.demo.answers import (
    MOST_CHARS,
    Chance,
    Decoded,
    Match,
    chance_of,
    checked,
    cosines,
    nearest,
    read_latents,
    reader_of,
    same_words,
    unknown_words,
)

NEIGHBOURS = 8
EXAMPLES = 4
EXAMPLE_SENTENCES = (3, 8)  # fewest and most of an example
DOCUMENTS = 256  # held-out ones whose sentences are candidates
AT_ONCE = 64  # documents read in one pass


@dataclass(frozen=True)
class HiddenAnswer:
    """The prediction of a hidden sentence, by its nearest sentences."""

    sentences: list[str]  # of the paragraph, in order
    hidden: int  # number of the hidden one, from 0
    own: list[Match]  # the paragraph's sentences, nearest first; mark "hidden" for the hidden one
    elsewhere: list[Match]  # sentences of held-out documents, nearest first
    chance: Chance
    rank: int  # of the hidden sentence among the paragraph's, 1 = nearest
    rank_overall: int  # among the paragraph's and the held-out ones
    candidates: int  # how many these are
    decoded: Decoded
    note: str  # how much of the paragraph is unknown to the run, or ""


class HiddenSentence:
    """The panel of hidden sentences; encodes the run's held-out sentences once, when it is made."""

    title = "Hidden sentence"

    def __init__(self, run: Run, collate: MaskedSentencesCollator) -> None:
        self.run = run
        self.collate = collate
        self.rows = collate.rows
        self.reader = reader_of(run)
        self.method: Any = run.experiment.method  # has `all_targets`, as in `tasks.sentences`
        self.documents = [fitting for text in run.held_out_texts(DOCUMENTS) if (fitting := self._fitting(text))]
        self.texts, self.latents = self._all_sentences()  # C, [C, D]

    def examples(self) -> list[tuple[str, int]]:
        """Paragraphs, and which of their sentences to hide (from 0)."""
        fewest, most = EXAMPLE_SENTENCES
        suitable = [document for document in self.documents if fewest <= len(document) <= most] or self.documents
        return [(" ".join(document), (1 + i) % len(document)) for i, document in enumerate(suitable[:EXAMPLES])]

    def sentences(self, paragraph: str) -> list[str]:
        """The sentences of a paragraph, as the run splits it."""
        return [piece for piece, ids in self._pieces(paragraph[:MOST_CHARS]) if len(ids)]

    def ask(self, paragraph: str, hidden: int | None) -> HiddenAnswer:
        """Hide sentence number `hidden` (from 0). Raises UserError if the paragraph does not allow it."""
        pieces = [piece for piece in self._pieces(checked(paragraph, "paragraph")) if len(piece[1])]
        sentences = [piece for piece, _ in pieces]
        if len(sentences) < 2:
            raise UserError("there is one sentence only; nothing is left to predict it from: give two or more")
        if hidden is None or not 0 <= hidden < len(sentences):
            raise UserError(f"choose which of the {len(sentences)} sentences to hide")
        tokens = [ids for _, ids in pieces]
        if (length := len(self.rows.join(tokens))) > self.rows.max_len:
            raise UserError(f"the paragraph has {length} tokens; this run reads {self.rows.max_len}: shorten it")
        predicted, own = self.predict(sentences, hidden)  # [D], [N, D]
        return self._answer(sentences, hidden, predicted, own)

    def predict(self, sentences: Sequence[str], hidden: int) -> tuple[np.ndarray, np.ndarray]:
        """The latent predicted for the hidden one of N sentences [D], and the targets of all of them [N, D].

        Targets are computed in a batch with held-out documents, over which they are standardised.
        """
        with evaluating(self.method, self.run.compute):
            predicted = self.method.predict_from_context(self._batch([sentences], hidden))  # [1, D]
        return _array(predicted)[0], self.targets([sentences, *self.documents[: AT_ONCE - 1]])[: len(sentences)]

    def targets(self, documents: Sequence[Sequence[str]]) -> np.ndarray:
        """The targets [M, D] of all sentences of some documents, in reading order."""
        batch = self._batch(documents, hidden=-1)
        with evaluating(self.method, self.run.compute):
            return _array(self.method.all_targets(batch))

    def _answer(self, sentences: list[str], hidden: int, predicted: np.ndarray, own: np.ndarray) -> HiddenAnswer:
        inside = {same_words(sentence) for sentence in sentences}
        others = [i for i, text in enumerate(self.texts) if same_words(text) not in inside]
        if not others:
            raise UserError("the run has no other held-out sentences; choose another paragraph")
        unrelated = cosines(predicted, self.latents[others])  # [C]
        chance = chance_of(unrelated, f"the prediction with {len(others)} sentences of held-out documents")
        near = cosines(predicted, own)  # [N]
        order = np.argsort(-near, kind="stable")
        found = [
            Match(sentences[i], float(near[i]), chance.z(float(near[i])), "hidden" if i == hidden else "")
            for i in order
        ]
        rank = 1 + int((near > near[hidden]).sum())
        return HiddenAnswer(
            sentences=sentences,
            hidden=hidden,
            own=found,
            elsewhere=nearest([self.texts[i] for i in others], unrelated, chance, NEIGHBOURS),
            chance=chance,
            rank=rank,
            rank_overall=rank + int((unrelated > near[hidden]).sum()),
            candidates=len(sentences) + len(others),
            decoded=read_latents(self.reader, predicted, own[hidden]),
            note=unknown_words(self.run, sentences),
        )

    def _batch(self, documents: Sequence[Sequence[str]], hidden: int) -> MaskedText:
        """Documents as their sentences; number `hidden` of each is hidden, -1 = none."""
        collate = replace(self.collate, masker=lambda count, _: torch.arange(count) == hidden)
        generator = generator_for(0, "demo")
        tokens = [self.rows.join(self._tokens(document)) for document in documents]
        rows = [TokenRow(ids, self.rows.special(ids), n) for n, ids in enumerate(tokens)]
        return collate([Sample(row, generator, row.document) for row in rows]).to(self.run.compute.device)

    def _tokens(self, sentences: Sequence[str]) -> list[np.ndarray]:
        return self.rows.tokenizer.encode_content(sentences)

    def _pieces(self, text: str) -> list[tuple[str, np.ndarray]]:
        """Sentences and their tokens."""
        pieces = self.rows.split(text)
        return list(zip(pieces, self._tokens(pieces), strict=True))

    def _fitting(self, text: str) -> list[str]:
        """The first sentences of a document that fit into a row; none if these are fewer than two."""
        sentences: list[str] = []
        free = self.rows.max_len - len(self.rows.tokenizer.prefix)  # tokens
        for piece, ids in self._pieces(text):
            free -= len(ids) + 1
            if free < 0:
                break
            sentences += [piece] if len(ids) else []
        return sentences if len(sentences) > 1 else []

    def _all_sentences(self) -> tuple[list[str], np.ndarray]:
        """The different sentences of the held-out documents, and the target of each [C, D]."""
        if not self.documents:
            raise UserError("none of the run's held-out documents has two sentences that fit into a row")
        texts: dict[str, str] = {}
        latents: dict[str, np.ndarray] = {}
        for start in range(0, len(self.documents), AT_ONCE):
            part = self.documents[start : start + AT_ONCE]
            targets = self.targets(part)  # [M, D]
            for text, latent in zip((sentence for document in part for sentence in document), targets, strict=True):
                texts.setdefault(same_words(text), text)
                latents.setdefault(same_words(text), latent)
        return list(texts.values()), np.stack(list(latents.values()))


def _array(latents: Tensor) -> np.ndarray:
    return latents.float().cpu().numpy()


ABOUT = (
    "The run reads the paragraph without one sentence, and predicts the latent of the missing one. "
    "The answer lists the sentences nearest to that latent."
)
