"""Similarity of texts, and the held-out texts nearest to each."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.data.text.rows import SentenceRows, TextRows
from openjepa.demo.answers import (
    MOST_CHARS,
    Chance,
    Match,
    checked,
    cosines,
    nearest,
    same_words,
    shortened,
    text_inputs,
    unknown_words,
)
from openjepa.evals.similarity import similar

MOST_TEXTS = 8
NEIGHBOURS = 3  # of each text


@dataclass(frozen=True)
class SimilarAnswer:
    """All pairs of N texts, and the neighbours of each."""

    texts: list[str]  # N
    cosine: list[list[float]]  # N x N
    z: list[list[float]]  # N x N
    chance: Chance
    neighbours: list[list[Match]]  # N, nearest first
    note: str  # what was read in parts, or is unknown to the run, or ""


class SimilarTexts:
    """The panel of similar texts; embeds the run's held-out texts once, when it is made."""

    title = "Similar texts"

    def __init__(self, run: Run, rows: TextRows | SentenceRows) -> None:
        self.run = run
        self.rows = rows
        self.corpus = list({same_words(text): text for text in run.held_out_texts()}.values())  # C
        self.vectors = run.encode(self.corpus)  # [C, D]

    def examples(self) -> list[str]:
        """Texts to click, one a line."""
        held_out = [shortened(text) for text in self.corpus]
        chosen = [held_out[:3], held_out[3:7]]
        with contextlib.suppress(UserError):  # held-out texts may be too few or too short for it
            chosen.insert(0, [shortened(text) for text in self.run.semantic_check()["texts"]])
        return ["\n".join(texts) for texts in chosen if len(texts) >= 2]

    def ask(self, entered: str) -> SimilarAnswer:
        """Compare texts, one a line. Raises UserError if there are not between 2 and 8."""
        texts = [line.strip() for line in checked(entered, "list of texts").splitlines() if line.strip()]
        if len(texts) < 2:
            raise UserError("there is one text only; give two or more, each on a separate line")
        if len(texts) > MOST_TEXTS:
            raise UserError(f"there are {len(texts)} texts; this page compares at most {MOST_TEXTS}, one a line")
        vectors = self.run.encode(texts)  # [N, D]
        result = similar(texts, vectors, self.vectors)
        random = result["random_pairs"]
        chance = Chance(random["mean"], random["std"], f"random pairs of {len(self.corpus)} held-out texts")
        neighbours = [self._neighbours(text, vector, chance) for text, vector in zip(texts, vectors, strict=True)]
        return SimilarAnswer(texts, result["cosine"], result["z"], chance, neighbours, self._note(texts))

    def _neighbours(self, text: str, vector: np.ndarray, chance: Chance) -> list[Match]:
        """The nearest held-out texts with other words."""
        others = np.array([i for i, known in enumerate(self.corpus) if same_words(known) != same_words(text)])
        similarity = cosines(vector, self.vectors[others])
        return nearest([self.corpus[i] for i in others], similarity, chance, NEIGHBOURS)

    def _note(self, texts: Sequence[str]) -> str:
        return " ".join(filter(None, [unknown_words(self.run, texts), self._in_parts(texts)]))

    def _in_parts(self, texts: Sequence[str]) -> str:
        """A sentence naming the texts that are longer than the run reads at once, with their tokens."""
        inputs = text_inputs(self.run)
        long = [
            f"{number} ({sum(len(inputs.content(row)) for row in windows)})"
            for number, windows in enumerate(inputs.windows(texts), 1)
            if len(windows) > 1
        ]
        limit = f"The run reads {self.rows.max_len} tokens at once, and the vector of a longer text is the mean of its"
        return f"{limit} parts; longer: {', '.join(long)}." if long else ""


ABOUT = (
    "Each text gets one vector. Two texts are similar if their cosine is clearly above those of random pairs. "
    f"Up to {MOST_TEXTS} texts, {MOST_CHARS} characters in all."
)
