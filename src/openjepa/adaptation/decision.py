"""Which maps are kept, by what is known without judgements; each reason in one sentence.

Fixed defaults, as priors: shrinkage 0.6 and ridge 0.03 gained on three judged collections, and no label-free measure
orders the candidates as judgements do. What tells collections apart beforehand is how many directions the differences
within documents use: of 384 dimensions 162, 185 and 194 where whitening gained, 201, 206 and 207 where it did not, for
one encoder on six collections. That is a lead, no law.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from openjepa.adaptation.statistics import Statistics

Choice = Literal["auto", "start", "whitening", "predictor"]
FEWEST_DOCUMENTS = 60  # of two or more parts, for the covariance
FEWEST_FOR_PREDICTOR = 400  # documents of three or more parts
LEAST_COHESION = 0.05  # below it, documents are hardly more alike inside than any texts
LARGEST_RANK = 0.515  # of the effective rank within documents, as a share of the dimensions


@dataclass(frozen=True)
class Decision:
    """What is kept: "start", "whitening", or "predictor" (whitening, and the predictor for queries)."""

    kept: Choice
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def decided(statistics: Statistics, predictable: int, choice: Choice = "auto") -> Decision:
    """What to keep of documents with these statistics.

    `predictable` is the number of documents with three or more parts. A `choice` other than "auto" is taken if there
    are enough documents.
    """
    if choice == "start":
        return Decision("start", ("the start was asked for",))
    if statistics.documents < FEWEST_DOCUMENTS:
        found = f"{statistics.documents} documents have two or more parts"
        return Decision("start", (f"{found}; the covariance within documents needs at least {FEWEST_DOCUMENTS}",))
    share = statistics.effective_rank / len(statistics.mean)
    rank = f"the differences within documents have an effective rank of {share:.3f} of the dimensions"
    no_gain = f"{rank}, and above {LARGEST_RANK} whitening gained nothing"
    if choice == "auto" and statistics.cohesion < LEAST_COHESION:
        found = f"parts of one document are hardly more alike than any parts (correlation {statistics.cohesion:.3f})"
        return Decision("start", (f"{found}; at least {LEAST_COHESION} is needed to learn from documents",))
    if choice == "auto" and share > LARGEST_RANK:
        return Decision("start", (f"no gain is expected: {no_gain}",))
    reasons = [
        f"a gain is expected: {rank}, and up to {LARGEST_RANK} whitening gained"
        if share <= LARGEST_RANK
        else f"it was asked for, though {no_gain}"
    ]
    if choice == "whitening":
        return Decision("whitening", tuple(reasons))
    if predictable < FEWEST_FOR_PREDICTOR:
        found = f"{predictable} documents have three or more parts"
        reasons.append(f"{found}; the predictor of queries needs at least {FEWEST_FOR_PREDICTOR} and is left out")
        return Decision("whitening", tuple(reasons))
    return Decision("predictor", tuple(reasons))
