"""Answers predicted from a question.

The latent predicted from the question is decoded by the run's readout, if it has one, and compared with the latents of
all different answers to its held-out questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Sample
from openjepa.core.seeding import generator_for
from openjepa.data.questions.batches import QuestionCollator, TokenizedQuestions
from openjepa.demo.answers import (
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
    verdict_of,
)
from openjepa.readout.store import require_readable

NEIGHBOURS = 8
EXAMPLES = 5
QUESTIONS = 2000  # held-out ones whose answers are candidates
AT_ONCE = 250  # questions read in one pass


@dataclass(frozen=True)
class QuestionAnswer:
    """The predicted answer to a question."""

    question: str
    answer: str  # decoded by the readout, or else the nearest known one
    true: str | None  # the right answer, where the question is a held-out one
    nearest: list[Match]  # known answers, nearest first; mark "right" for the right one
    chance: Chance
    rank: int | None  # of the right answer among the known ones, 1 = nearest
    candidates: int  # how many answers are known
    decoded: Decoded
    note: str  # how much of the question is unknown to the run, or ""
    verdict: str  # of the run's newest health check


class Questions:
    """The panel of questions; encodes the run's held-out answers once, when it is made."""

    title = "Question and answer"

    def __init__(self, run: Run, collate: QuestionCollator, held_out: TokenizedQuestions) -> None:
        self.run = run
        self.collate = collate
        self.max_len = held_out.max_len
        self.readable = require_readable(run.experiment, run.recipe)
        self.reader = reader_of(run)
        self.known: dict[str, tuple[str, str]] = {}  # held-out questions by their words: question and answer
        latents: dict[str, np.ndarray] = {}  # answers, each [D]
        rows = list(islice(held_out.rows, QUESTIONS))
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            batch = collate([Sample(row, generator_for(0, "demo"), number) for number, row in enumerate(part)])
            with evaluating(run.experiment.method, run.compute):
                reading = self.readable.read(run.experiment.method, batch.to(run.compute.device))
            targets = reading.target.float().cpu().numpy()  # [M, D]
            for row, latent in zip(part, targets, strict=True):
                question, answer = (self.readable.decode(ids.tolist()).strip() for ids in row)
                self.known.setdefault(same_words(question), (question, answer))
                latents.setdefault(answer, latent)
        # C, [C, D]
        self.answers = list(latents)
        self.latents = np.stack(list(latents.values()))
        self.verdict = verdict_of(run)

    @property
    def about(self) -> str:
        """The text above the question: what is predicted, and how many answers are possible."""
        if isinstance(self.reader, str):
            return f"{ABOUT} It can give {len(self.answers)} answers: all different ones to its held-out questions."
        return (
            f"{ABOUT} The readout can write any text; it is compared with {len(self.answers)} known answers: all "
            "different ones to the run's held-out questions."
        )

    def examples(self) -> list[str]:
        """Held-out questions."""
        return [question for question, _ in islice(self.known.values(), EXAMPLES)]

    def ask(self, entered: str) -> QuestionAnswer:
        """Predict the answer. Raises UserError if the question is empty or longer than the run reads."""
        question = checked(entered, "question")
        tokens = len(self.collate.tokenizer.encode_content([question])[0])
        most = self.max_len - 2
        if tokens > most:
            raise UserError(f"the question has {tokens} tokens; this run reads {most}: shorten it")
        predicted = self.run.encode([question])[0]  # [D]
        similarity = cosines(predicted, self.latents)  # [C]
        chance = chance_of(similarity, f"the prediction with all {len(self.answers)} different held-out answers")
        matches = nearest(self.answers, similarity, chance, NEIGHBOURS)
        _, true = self.known.get(same_words(question), (question, None))
        own = self.answers.index(true) if true is not None else None
        decoded = read_latents(self.reader, predicted, None if own is None else self.latents[own])
        return QuestionAnswer(
            question=question,
            answer=matches[0].text if decoded.missing else decoded.predicted.strip(),
            true=true,
            nearest=[Match(m.text, m.cosine, m.z, "right" if m.text == true else "") for m in matches],
            chance=chance,
            rank=None if own is None else 1 + int((similarity > similarity[own]).sum()),
            candidates=len(self.answers),
            decoded=decoded,
            note=unknown_words(self.run, [question]),
            verdict=self.verdict,
        )


ABOUT = (
    "The run reads only the question, and predicts the latent of its answer. "
    "The answer shows the text of that latent, and the known answers nearest to it."
)
