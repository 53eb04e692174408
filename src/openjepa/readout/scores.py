"""How much of a text a readout recovers from its latent, relative to a readout trained on shuffled latents.

Two measures, means over held-out texts in [0, 1], higher is better:

    token_accuracy   share of a text's tokens, its end included, that are the likeliest after the right ones before them
    exact_match      greedy decoding gives the text, token by token, or an equivalent one (`ReadoutSource.same`)

each from the targets and from the latents predicted from the context: `target_exact_match`, `predicted_exact_match`.
`chance` is the best constant answer: the most frequent token, or text, of the test set. The interval treats texts of
one document as independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.core.reading import ReadoutSource, TextLatents
from openjepa.core.seeding import generator_for
from openjepa.evals.scores import Score, difference_interval
from openjepa.readout.decoder import Aims, Readout

SOURCES = ("target", "predicted")  # latents that are decoded
EXAMPLES = 5

Measures = dict[str, dict[str, Any]]


@torch.no_grad()
def compare(
    readout: Readout, prior: Readout, readings: Iterable[TextLatents], readable: ReadoutSource | None = None
) -> tuple[Measures, int]:
    """Measures of both readouts on the same texts, and the number of texts; `readable` may define equivalent texts.

    {measure: {"readout", "shuffled", "chance", "gain", "interval"}}: `shuffled` is the score of `prior`, and `interval`
    the 95 % paired bootstrap interval of gain = readout - shuffled over texts.
    """
    pairs = [(reading, readout.aims(reading.ids, reading.valid)) for reading in readings]
    chance = _constant([aims for _, aims in pairs])
    measures: Measures = {}
    for source in SOURCES:
        first, second = (_scores(model, pairs, source, chance, readable) for model in (readout, prior))
        for name, score in first.items():
            measure = f"{source}_{name}"
            interval = difference_interval(score, second[name], generator_for(0, "readout", measure))
            measures[measure] = {
                "readout": score.value,
                "shuffled": second[name].value,
                "chance": score.chance,
                "gain": score.value - second[name].value,
                "interval": list(interval),
            }
    return measures, sum(len(aims.whole) for _, aims in pairs)


def examples(read: Callable[[Tensor], list[str]], decode: Callable[[Sequence[int]], str], reading: TextLatents) -> list:
    """A few texts of one reading, and the texts `read` from their latents: [{"text", "target", "predicted"}]."""
    chosen = torch.linspace(0, len(reading.ids) - 1, min(EXAMPLES, len(reading.ids))).long().to(reading.ids.device)
    texts = [decode(reading.ids[i, reading.valid[i]].tolist()) for i in chosen]
    columns = zip(texts, read(reading.target[chosen]), read(reading.predicted[chosen]), strict=True)
    return [{"text": text, "target": target, "predicted": predicted} for text, target, predicted in columns]


def _scores(
    readout: Readout,
    pairs: Sequence[tuple[TextLatents, Aims]],
    source: str,
    chance: dict,
    readable: ReadoutSource | None,
) -> dict[str, Score]:
    tokens = []
    exact = []
    for reading, aims in pairs:
        latents = reading.target if source == "target" else reading.predicted  # [M, D]
        hits = readout.hits(latents, aims).sum(1)  # [M]
        lengths = aims.real.sum(1)  # [M]
        right = (hits == lengths) & aims.whole  # [M]
        if readable is not None and readable.same is not None:
            right |= _equivalent(readout, latents, reading, ~right & aims.whole, readable)
        tokens.append((hits / lengths).cpu().double().numpy())
        exact.append(right.cpu().double().numpy())
    items = {"token_accuracy": np.concatenate(tokens), "exact_match": np.concatenate(exact)}
    return {name: Score(values, chance[name]) for name, values in items.items()}


def _equivalent(
    readout: Readout, latents: Tensor, reading: TextLatents, tested: Tensor, readable: ReadoutSource
) -> Tensor:
    """[M] bool, True where the text decoded from a `tested` [M] latent is equivalent to the right one."""
    assert readable.same is not None
    same = torch.zeros_like(tested)
    rows = tested.nonzero()[:, 0].tolist()
    decoded = readout.greedy(latents[tested]).tolist() if rows else []
    for row, ids in zip(rows, decoded, strict=True):
        right = readable.decode(reading.ids[row, reading.valid[row]].tolist())
        same[row] = readable.same(readable.decode([token for token in ids if token != readout.end]), right)
    return same


def _constant(batches: Sequence[Aims]) -> dict[str, float]:
    """Scores of always giving the most frequent token, or text."""
    texts = [
        ids[real] for aims in batches for ids, real in zip(aims.ids.cpu().numpy(), aims.real.cpu().numpy(), strict=True)
    ]
    whole = [bool(one) for aims in batches for one in aims.whole]
    commonest = np.bincount(np.concatenate(texts)).argmax()
    repeats = Counter(text.tobytes() for text, is_whole in zip(texts, whole, strict=True) if is_whole)
    return {
        "token_accuracy": float(np.mean([(text == commonest).mean() for text in texts])),
        "exact_match": max(repeats.values(), default=0) / len(texts),
    }
