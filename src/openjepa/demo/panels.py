"""The panels of a run, chosen by its rows and its collator."""

from __future__ import annotations

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.data.questions.batches import QuestionCollator, TokenizedQuestions
from openjepa.data.text.corpus import TokenizedCorpus
from openjepa.data.text.masked_sentences import MaskedSentencesCollator
from openjepa.data.text.rows import SentenceRows, TextRows
from openjepa.demo.hidden_sentence import HiddenSentence
from openjepa.demo.questions import Questions
from openjepa.demo.similar_texts import SimilarTexts

Panel = HiddenSentence | SimilarTexts | Questions


def panels_of(run: Run) -> list[Panel]:
    """The panels of the page, the most informative first. Raises UserError if the run reads no text."""
    held_out, collate = run.experiment.eval_data, run.experiment.collate
    panels: list[Panel] = []
    if isinstance(collate, QuestionCollator) and isinstance(held_out, TokenizedQuestions):
        panels.append(Questions(run, collate, held_out))
    if isinstance(collate, MaskedSentencesCollator):
        panels.append(HiddenSentence(run, collate))
    if isinstance(held_out, TokenizedCorpus) and isinstance(held_out.maker, TextRows | SentenceRows):
        panels.append(SimilarTexts(run, held_out.maker))
    if not panels:
        raise UserError(f"the demo shows runs on texts or questions, and {run.recipe} reads neither")
    return panels
