"""LANG-JEPA for `bench_step.py`: the recipe, and the original's (context, hidden sentence) pairs of the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from reference_lang_jepa import ReferenceLangJEPA, Sizes
from sides import DISTILBERT, Asked, Built, Recipe, our_side, real_positions, shuffled, with_encoder
from stepping import Read, Side

from openjepa.data.tokenizers.choice import TextTokenizer

LENGTH = 128  # tokens


def ours(asked: Asked) -> Built:
    """The recipe as users run it with `encoder.name`, `train.batch_tokens`, `train.precision` and `invariance=0`.

    Targets are of the top layer, as the original's.
    """
    from openjepa.recipes import lang_jepa

    target = {"norm": "standardize", "skip_top": 0}
    config, experiment, vocabulary = with_encoder(lang_jepa, asked, LENGTH, target=target)

    def read(batch: Any) -> Read:
        hidden = batch.hidden_tokens.segment
        teacher = hidden if config.teacher_reads == "alone" else batch.valid
        other_view = [hidden] if experiment.method.two_views.pulls else []
        encoder = experiment.method.student
        encoded = [real_positions(encoder, read) for read in (batch.visible_tokens.valid, teacher, *other_view)]
        return Read(len(batch.hidden_segments), encoded)

    return Built(our_side(experiment, read), experiment.train_data, config, vocabulary)


def original(asked: Asked, built: Built) -> Side:
    """The original's step on the sentences of the same rows, as many a batch as hold about our number of tokens."""
    tokenizer, data, predictor = TextTokenizer.load(asked.encoder), built.rows, built.config.predictor
    reference = ReferenceLangJEPA(
        asked.encoder,
        tokenizer.encode_content,
        tokenizer.pad_id,
        Sizes(built.config.encoder.max_len, predictor.width, predictor.depth, predictor.heads),
        built.config.mask.ratio,
        asked.padding,
    )
    rows = [sentences_of(data[i].ids, tokenizer) for i in range(len(data))]
    kept = [i for i, row in enumerate(rows) if all(row)]  # a sentence of unknown characters alone has no text
    batches = shuffled([rows[i] for i in kept], [int(data.lengths[i]) for i in kept], asked.size.batch_tokens)

    def step() -> Read:
        contexts, sentences = reference.step(next(batches))
        return Read(len(sentences), [contexts, sentences])

    return Side(step, sum(p.numel() for p in reference.trained))


def sentences_of(ids: np.ndarray, tokenizer: TextTokenizer) -> list[str]:
    """A row [L], each sentence of which ends in [SEP], as texts."""
    ends = np.flatnonzero(ids == tokenizer.sep_id) + 1
    return [tokenizer.decode(sentence) for sentence in np.split(ids, ends) if len(sentence)]


RECIPE = Recipe("hidden sentence", "stories", DISTILBERT, "batch", ours, original)
