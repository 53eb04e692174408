"""Common parts of the demo's panels: limits on inputs, and cosines relative to those of unrelated texts.

A cosine means nothing without those of unrelated texts, so a `Match` has its `z`: how many of their standard deviations
it lies above their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.data.text.inputs import TextInputs
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens
from openjepa.evals.features import inner_products, require_finite, unit_rows
from openjepa.evals.similarity import RESOLUTION
from openjepa.readout.store import LatentReader

MOST_CHARS = 4000  # of the input in one box
EXAMPLE_CHARS = 240  # of an example; longer documents are cut at a word


@dataclass(frozen=True)
class Chance:
    """Cosines of unrelated texts."""

    mean: float
    std: float
    pairs: str  # the pairs and their number, in words

    def z(self, cosine: float) -> float:
        """Standard deviations above the mean of unrelated texts."""
        return (cosine - self.mean) / max(self.std, RESOLUTION)


@dataclass(frozen=True)
class Match:
    """A text and its similarity to the input or prediction."""

    text: str
    cosine: float
    z: float
    mark: str = ""  # label of a special text: "hidden"


@dataclass(frozen=True)
class Decoded:
    """Texts decoded by the run's readout, or in `missing` why there are none."""

    predicted: str = ""  # read from the predicted latent
    target: str = ""  # read from the latent of the true text; "" if there is none
    missing: str = ""


def checked(entered: str, what: str) -> str:
    """The input, trimmed. Raises UserError if it is empty or too long."""
    text = entered.strip()
    if not text:
        raise UserError(f"the {what} is empty; type one in, or click an example")
    if len(text) > MOST_CHARS:
        raise UserError(f"the {what} has {len(text)} characters; this page takes at most {MOST_CHARS}")
    return text


def text_inputs(run: Run) -> TextInputs:
    """The run's text inputs."""
    inputs = run.experiment.embedding.inputs
    assert isinstance(inputs, TextInputs), "the demo is for runs on texts"
    return inputs


def unknown_words(run: Run, texts: Sequence[str]) -> str:
    """The share of unknown tokens in these texts, in one sentence; "" if it is negligible."""
    inputs = text_inputs(run)
    unknown = UnknownTokens(inputs.tokenizer)
    unknown.add(inputs.tokenizer.encode_content(texts))
    sentence = unknown.sentence(inputs.synthetic_world)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def cosines(query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """[D], [C, D] -> [C]. Raises UserError if the run gives NaN."""
    for vectors in (query[None], candidates):
        require_finite(vectors, "the run")
    return inner_products(unit_rows(query[None]), unit_rows(candidates))[0]


def chance_of(found: np.ndarray, pairs: str) -> Chance:
    """Mean and deviation of cosines [C] with unrelated texts."""
    return Chance(float(found.mean()), float(found.std()), pairs)


def nearest(texts: Sequence[str], found: np.ndarray, chance: Chance, count: int) -> list[Match]:
    """The `count` texts with the highest of the cosines `found` [C], highest first."""
    order = np.argsort(-found, kind="stable")[:count]
    return [Match(texts[i], float(found[i]), chance.z(float(found[i]))) for i in order]


def verdict_of(run: Run) -> str:
    """The newest verdict of the run's health checks in words, with its kind and skill; or why there is none."""
    records = run.health()
    if not records:
        return "no verdict: this run has no health check"
    latest = records[-1]
    kind = f" ({latest['kind']})" if latest["kind"] else ""
    skill = f", skill {latest['skill']:.2f}" if "skill" in latest else ""
    return f"{latest['status']}{kind}{skill}, at step {latest['step']}"


def reader_of(run: Run) -> LatentReader | str:
    """The run's readout, or one line on why there is none and how to train it."""
    try:
        return run.readout()
    except UserError as error:
        return str(error)


def read_latents(reader: LatentReader | str, predicted: np.ndarray, target: np.ndarray | None) -> Decoded:
    """Decode a predicted latent [D] and, if given, that of the true text [D]."""
    if isinstance(reader, str):
        return Decoded(missing=reader)
    latents = predicted[None] if target is None else np.stack([predicted, target])
    texts = reader.texts(latents)
    return Decoded(*texts)


def shortened(text: str, limit: int = EXAMPLE_CHARS) -> str:
    """One line of at most about `limit` characters, cut after a word."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit + 1].rpartition(" ")[0] or line[:limit]


def beginning(text: str, limit: int = EXAMPLE_CHARS) -> str:
    """`shortened`, with an ellipsis where something is left out."""
    short = shortened(text, limit)
    return short if short == " ".join(text.split()) else f"{short} ..."


def same_words(text: str) -> str:
    """Equal for texts that differ in case and white space only."""
    return " ".join(text.casefold().split())
