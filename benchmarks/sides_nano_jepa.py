"""nanoJEPA for `bench_step.py`: the recipe's one masked pass, and three passes over the same questions and answers."""

from __future__ import annotations

from typing import Any

from reference_nano_jepa import ReferenceNanoJEPA
from sides import Asked, Built, Recipe, Size, made, our_side, shuffled
from stepping import Read, Side

from openjepa.data.questions.batches import QuestionCollator
from openjepa.data.questions.dataset import WORLD
from openjepa.data.tokenizers.choice import TextTokenizer

PAPER = Size(layers=6, dim=512, heads=8, vocab=50_257, batch_tokens=2048)
LENGTH = 256  # tokens, of the preset `paper`
WORLD_LENGTH = 64  # tokens; problems of the arithmetic world are shorter, and padding them to 256 would be no yardstick


def ours(asked: Asked) -> Built:
    """The recipe with the preset `paper`'s decoder and losses, and a vocabulary from the data."""
    from openjepa.recipes import nano_jepa

    size = asked.size
    config, experiment = made(
        nano_jepa,
        asked,
        {
            "tokenizer": {"kind": "bpe", "vocab_size": size.vocab, "lowercase": False},
            "decoder": {
                "dim": size.dim,
                "depth": size.layers,
                "heads": size.heads,
                "max_len": WORLD_LENGTH if asked.source == WORLD else LENGTH,
            },
            "target_space": "raw",
            "regularizer": {"name": "none"},
        },
    )
    vocabulary = QuestionCollator.of(TextTokenizer.load(asked.assets)).tokenizer.vocab_size

    def read(batch: Any) -> Read:
        return Read(batch.size, [batch.valid])

    return Built(our_side(experiment, read), experiment.train_data, config, vocabulary)


def original(asked: Asked, built: Built) -> Side:
    """Three passes over the same questions, as many a batch as hold about our number of tokens."""
    collate = QuestionCollator.of(TextTokenizer.load(asked.assets))
    decoder, data = built.config.decoder, built.rows
    marks = (collate.tokenizer.pad_id, collate.tokenizer.sep_id, collate.pred_id)
    reference = ReferenceNanoJEPA(
        decoder.depth, decoder.dim, decoder.heads, built.vocabulary, decoder.max_len, marks, asked.padding
    )
    rows = [data[i] for i in range(len(data))]
    batches = shuffled(rows, data.lengths.tolist(), asked.size.batch_tokens)

    def step() -> Read:
        batch = next(batches)
        return Read(len(batch), reference.step(batch))

    return Side(step, sum(p.numel() for p in reference.trained))


RECIPE = Recipe("question", WORLD, PAPER, "max", ours, original)
