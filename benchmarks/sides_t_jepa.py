"""T-JEPA for `bench_step.py`: the recipe, and the original on the first 128 tokens of the same documents."""

from __future__ import annotations

from typing import Any

from reference_t_jepa import LENGTH, ReferenceTJEPA
from sides import DISTILBERT, Asked, Built, Recipe, our_side, real_positions, shuffled, with_encoder
from stepping import Read, Side

from openjepa.data.tokenizers.choice import TextTokenizer


def ours(asked: Asked) -> Built:
    """The recipe as users run it with `encoder.name`, `train.batch_tokens`, `train.precision` and `invariance=0`."""
    from openjepa.recipes import t_jepa

    config, experiment, vocabulary = with_encoder(t_jepa, asked, LENGTH)

    def read(batch: Any) -> Read:
        student = batch.visible_tokens.valid if config.mask.how == "drop" else batch.valid
        spans = batch.hidden_tokens.segment
        teacher = spans if config.teacher_reads == "spans" else batch.valid
        other_view = [spans] if experiment.method.two_views.pulls else []
        encoder = experiment.method.student
        return Read(batch.tokens, [real_positions(encoder, read) for read in (student, teacher, *other_view)])

    return Built(our_side(experiment, read), experiment.train_data, config, vocabulary)


def original(asked: Asked, built: Built) -> Side:
    """The original's step on the same documents, each cut at 128 tokens, with as many real tokens a batch as ours."""
    tokenizer, data = TextTokenizer.load(asked.encoder), built.rows
    reference = ReferenceTJEPA(asked.encoder, tokenizer.pad_id, tokenizer.mask_id, asked.padding)
    owners = [data[i].document for i in range(len(data))]
    starts = [i for i, owner in enumerate(owners) if i == 0 or owner != owners[i - 1]]  # the first row of each document
    texts = [data[i].ids for i in starts]
    batches = shuffled(texts, [len(text) for text in texts], asked.size.batch_tokens)

    def step() -> Read:
        batch = next(batches)
        valid = reference.step(batch)
        return Read(sum(len(text) for text in batch), [valid, valid])

    return Side(step, sum(p.numel() for p in reference.trained))


RECIPE = Recipe("real token", "stories", DISTILBERT, "max", ours, original)
