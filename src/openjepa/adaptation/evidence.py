"""What can be measured without judgements, on documents that the maps were not fitted to.

None of it chooses between candidates by itself: that a part finds the rest of its document asks for one document, where
a searcher asks for a topic. On three judged collections it fell where nDCG@10 rose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from openjepa.adaptation.latents import DocumentLatents
from openjepa.encoding.compact import neighbours_kept
from openjepa.evals.features import unit_rows

MOST_DOCUMENTS = 1000
FEWEST_DOCUMENTS = 20
Map = Callable[[np.ndarray], np.ndarray]  # unit latents [N, D] -> [N, E]


@dataclass(frozen=True)
class Candidate:
    """A way to make vectors of documents, and of queries, from the encoder's latents."""

    documents: Map
    queries: Map


@dataclass(frozen=True)
class Evidence:
    """Measures of one candidate on held-out documents, each 0 to 1."""

    part_finds_rest: float  # mean reciprocal rank of a document's other parts, for one of its parts as the query
    first_finds_rest: float  # the same for its first part: the title, if there are titles
    neighbours_kept: float | None  # share of each document's 10 nearest that are so for the start

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compared(latents: DocumentLatents, candidates: Mapping[str, Candidate], seed: int = 0) -> dict[str, Evidence]:
    """Measure candidates on at most 1,000 held-out documents of two or more parts; nothing for fewer than 20.

    "start" must be among the candidates.
    """
    chosen = np.flatnonzero(latents.held_out & (latents.part_counts >= 2))[:MOST_DOCUMENTS]
    if len(chosen) < FEWEST_DOCUMENTS:
        return {}
    parts, drawn = _parts_of(latents, chosen, np.random.default_rng(seed))
    documents = np.array(latents.documents[chosen], dtype=np.float32)  # [K, D]
    start = candidates["start"].documents(documents)
    return {
        name: Evidence(
            _reciprocal_rank(candidate, parts, drawn),
            _reciprocal_rank(candidate, parts, [0] * len(parts)),
            neighbours_kept(start, candidate.documents(documents)),
        )
        for name, candidate in candidates.items()
    }


def _parts_of(
    latents: DocumentLatents, chosen: np.ndarray, generator: np.random.Generator
) -> tuple[list[np.ndarray], list[int]]:
    """The parts [n_i, D] of each document, and one of them drawn."""
    first = np.searchsorted(latents.owner, chosen)
    last = np.searchsorted(latents.owner, chosen, side="right")
    parts = [np.array(latents.parts[a:b], dtype=np.float32) for a, b in zip(first, last, strict=True)]
    return parts, [int(generator.integers(len(rows))) for rows in parts]


def _reciprocal_rank(candidate: Candidate, parts: list[np.ndarray], asked: list[int]) -> float:
    """Mean reciprocal rank of the rest of the document among all documents, for part number `asked` as the query."""
    mapped = [candidate.documents(rows) for rows in parts]  # each [n_i, E]
    whole = unit_rows(np.stack([rows.mean(axis=0) for rows in mapped]))  # [K, E]
    rest = unit_rows(
        np.stack([np.delete(rows, number, axis=0).mean(axis=0) for rows, number in zip(mapped, asked, strict=True)])
    )
    queries = candidate.queries(np.stack([rows[number] for rows, number in zip(parts, asked, strict=True)]))  # [K, E]
    scores = unit_rows(queries) @ whole.T  # [K, K]
    own = (unit_rows(queries) * rest).sum(axis=1)  # [K]
    np.fill_diagonal(scores, -np.inf)
    return float((1 / (1 + (scores >= own[:, None]).sum(axis=1))).mean())
