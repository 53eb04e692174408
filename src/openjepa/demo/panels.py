"""The panels of a run, chosen by its rows and its collator."""

from __future__ import annotations

from openjepa.api import Run
from openjepa.data.captions.batches import CaptionCollator
from openjepa.data.captions.dataset import CaptionedImages
from openjepa.data.images.batches import MaskedImageCollator, ViewCollator
from openjepa.data.images.dataset import ImageSet
from openjepa.data.questions.batches import QuestionCollator, TokenizedQuestions
from openjepa.data.text.corpus import TokenizedCorpus
from openjepa.data.text.masked_sentences import MaskedSentencesCollator
from openjepa.data.text.rows import SentenceRows, TextRows
from openjepa.demo.hidden_patches import HiddenPatches
from openjepa.demo.hidden_sentence import HiddenSentence
from openjepa.demo.questions import Questions
from openjepa.demo.similar_images import SimilarImages
from openjepa.demo.similar_texts import SimilarTexts
from openjepa.demo.views import SeveralViews

Panel = HiddenSentence | SimilarTexts | Questions | HiddenPatches | SeveralViews | SimilarImages


def panels_of(run: Run) -> list[Panel]:
    """The panels of a run with a checkpoint, the most informative first; none if it reads no texts and no images."""
    held_out = run.experiment.eval_data
    collate = run.experiment.collate
    if isinstance(held_out, ImageSet | CaptionedImages):
        return [_of_images(run, held_out)]
    panels: list[Panel] = []
    if isinstance(collate, QuestionCollator) and isinstance(held_out, TokenizedQuestions):
        panels.append(Questions(run, collate, held_out))
    if isinstance(collate, MaskedSentencesCollator):
        panels.append(HiddenSentence(run, collate))
    if isinstance(held_out, TokenizedCorpus) and isinstance(held_out.maker, TextRows | SentenceRows):
        panels.append(SimilarTexts(run, held_out.maker))
    return panels


def _of_images(run: Run, held_out: ImageSet | CaptionedImages) -> Panel:
    collate = run.experiment.collate
    if isinstance(collate, MaskedImageCollator | CaptionCollator):
        return HiddenPatches(run, collate, held_out)
    if isinstance(collate, ViewCollator) and isinstance(held_out, ImageSet):
        return SeveralViews(run, collate, held_out)
    return SimilarImages(run, held_out)
