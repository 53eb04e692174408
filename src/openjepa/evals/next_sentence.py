"""Which sentences of a corpus are nearest to what a run expects to follow a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.seeding import generator_for
from openjepa.data.text.masked_sentences import MaskedSentencesCollator
from openjepa.evals.features import inner_products, unit_rows
from openjepa.evals.similarity import random_pair_cosines

AT_ONCE = 16  # documents


@dataclass(frozen=True)
class NextSentences:
    """Sentences by falling cosine with the predicted latent, and the mean cosine of two random sentences."""

    sentences: tuple[str, ...]
    cosines: tuple[float, ...]
    random_pairs: float
    candidates: int  # different sentences

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def next_sentences(experiment: Experiment, recipe: str, text: str, corpus: Sequence[str], top: int) -> NextSentences:
    """Predict the latent of the sentence after `text`, and rank the sentences of the documents of `corpus`.

    Raises UserError if the method predicts no sentences, the text is empty, or the corpus has fewer than 3 sentences.
    """
    collate = experiment.collate
    method: Any = experiment.method
    if not isinstance(collate, MaskedSentencesCollator):
        raise UserError(f"next needs a run that predicts sentences, such as lang_jepa's; this one is of {recipe}")
    device = experiment.compute.device
    latents: list[Tensor] = []
    known: dict[str, int] = {}  # each sentence once, where it is first
    count = 0
    with evaluating(method, experiment.compute):
        predicted = method.predict_from_context(collate.continued(text).to(device)).float().cpu().numpy()  # [1, D]
        for start in range(0, len(corpus), AT_ONCE):
            batch, sentences = collate.documents(corpus[start : start + AT_ONCE])
            if batch is None:
                continue
            latents.append(method.sentence_latents(batch.to(device)).float().cpu())
            for number, sentence in enumerate(sentences):
                known.setdefault(sentence, count + number)
            count += len(sentences)
    if len(known) < 3:
        raise UserError(f"the corpus has {len(known)} sentences in documents of two or more; give more documents")
    targets = method.as_targets(torch.cat(latents)).numpy()  # [N, D], normed over the whole corpus
    candidates = targets[list(known.values())]  # [C, D]
    cosines = inner_products(unit_rows(predicted), unit_rows(candidates))[0]  # [C]
    order = np.argsort(-cosines, kind="stable")[:top]
    names = list(known)
    return NextSentences(
        tuple(names[number] for number in order),
        tuple(float(cosine) for cosine in cosines[order]),
        float(random_pair_cosines(candidates, generator_for(0, "next")).mean()),
        len(known),
    )
