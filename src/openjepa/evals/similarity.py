"""Cosine similarity of embeddings: by triplets, human ratings, and relative to random pairs.

A cosine means nothing by itself: in a narrow cone of embeddings unrelated texts have 0.9. So `similar` compares every
cosine with those of random pairs, and the two scores compare cosines only with one another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Search, Similarity, Triplets, pool_table
from openjepa.data.files.discovery import kind_of
from openjepa.evals.features import Embedder, Vectors, cosine_rows, inner_products, require_finite, unit_rows
from openjepa.evals.rated_pairs import read_rated_pairs
from openjepa.evals.scores import Score

RESOLUTION = 1e-6  # cosines of float32 vectors that differ by less are equal
LEAST_BACKGROUND = 20  # texts, 190 different pairs: fewer are not enough for percentiles
POOL = 100  # candidates of an alignment, the right one included
TEXT = (str, "text")  # type of a field of a file, and its name
NUMBER = (int | float, "number")


def triplet_accuracy(embedder: Embedder, task: Triplets) -> Score:
    """Share in [0, 1] of anchors nearer (by cosine) to their positive than to their negative; a tie counts as wrong.

    A collapsed encoder gives ties only and scores 0, below the chance of 0.5.
    """
    anchors = embedder(task.anchors)  # [N, D]
    margin = cosine_rows(anchors, embedder(task.positives)) - cosine_rows(anchors, embedder(task.negatives))  # [N]
    return Score((margin > RESOLUTION).astype(np.float64), chance=0.5)


def spearman(embedder: Embedder, task: Similarity) -> Score:
    """Spearman correlation in [-1, 1] of cosines with human ratings; 0 if all cosines are equal."""
    cosines = cosine_rows(embedder(task.first), embedder(task.second))  # [N]
    return Score(cosines, chance=0.0, gold=np.asarray(task.scores, dtype=np.float64))


def random_pair_cosines(vectors: Vectors, generator: torch.Generator, pairs: int = 10_000) -> np.ndarray:
    """[pairs] cosines of two different rows of `vectors` [N, D], drawn with replacement. UserError below 3 rows."""
    count = vectors.shape[0]
    if count < 3:
        raise UserError(
            f"a cosine means nothing without random pairs, and the background for them holds {count} texts; give a "
            "file of other texts: --background FILE (a hundred or more)"
        )
    first = torch.randint(count, (pairs,), generator=generator).numpy()
    second = (first + torch.randint(1, count, (pairs,), generator=generator).numpy()) % count
    return cosine_rows(vectors[first], vectors[second])


def random_pairs(vectors: Vectors, generator: torch.Generator) -> tuple[float, float]:
    """Mean and standard deviation of the cosines of random pairs. A mean near 1 is a narrow cone; healthy is near 0."""
    cosines = random_pair_cosines(vectors, generator)
    return float(cosines.mean()), float(cosines.std())


def similar(texts: Sequence[str], vectors: np.ndarray, background: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Cosines of N `texts` with these `vectors` [N, D], relative to random pairs of `background` [M, D]; for JSON.

    `cosine`, `z` and `percentile` are N x N: the cosine, its distance from the mean of random pairs in their standard
    deviations, and the share in [0, 100] of random pairs with a lower cosine. `percentile` is None where the background
    has fewer than LEAST_BACKGROUND texts. Raises UserError below 3.
    """
    for embedded in (vectors, background):
        require_finite(embedded, "the model")
    cosines = inner_products(unit_rows(vectors), unit_rows(vectors))  # [N, N]
    random = random_pair_cosines(background, generator_for(seed, "similar", "random pairs"))  # [P]
    mean = float(random.mean())
    std = float(random.std())
    below = np.searchsorted(np.sort(random), cosines - RESOLUTION)  # [N, N]
    count = len(background)
    enough = count >= LEAST_BACKGROUND
    return {
        "texts": list(texts),
        "cosine": cosines.tolist(),
        "z": ((cosines - mean) / max(std, RESOLUTION)).tolist(),
        "percentile": (100 * below / len(random)).tolist() if enough else None,
        "random_pairs": {"mean": mean, "std": std, "pairs": count * (count - 1) // 2, "texts": count},
    }


def read_similarity(path: Path, name: str = "similarity") -> Similarity:
    """Read a task of rated pairs: JSON lines, or a .csv or .tsv, with `sentence1`, `sentence2` and `score`.

    The STS benchmark's files are recognised, see `rated_pairs`. UserErrors name the file, line and field.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "csv" or kind == "tsv":
        rows: Sequence[tuple[Any, ...]] = read_rated_pairs(path, kind)
    else:
        rows = _rows(path, {"sentence1": TEXT, "sentence2": TEXT, "score": NUMBER})
    if len(rows) < 3:
        raise UserError(f"{path} holds {len(rows)} pairs; a rank correlation needs at least 3")
    first, second, scores = zip(*rows, strict=True)
    return Similarity(name, first, second, tuple(float(score) for score in scores))


def read_triplets_jsonl(path: Path, name: str) -> Triplets:
    """Read a task from JSON lines of `anchor`, `positive` and `negative`. UserErrors name the file, line and field."""
    rows = _rows(path, {"anchor": TEXT, "positive": TEXT, "negative": TEXT})
    if not rows:
        raise UserError(f"{path} holds no triplets")
    return Triplets(name, *zip(*rows, strict=True))


def read_alignment_jsonl(path: Path, name: str) -> Search:
    """Read a task from JSON lines of `first` and `second`, texts that belong together (a question and its answer, say).

    Each first text has to retrieve its second among those of up to POOL - 1 other lines, drawn by a hash of the pair:
    top-1 and mean reciprocal rank. UserErrors name the file, line and field.
    """
    rows = _rows(path, {"first": TEXT, "second": TEXT})
    answers: dict[str, set[str]] = {}  # first text -> all second texts of it, none of which is a wrong answer
    for first, second in rows:
        answers.setdefault(first, set()).add(second)
    documents = list(dict.fromkeys(second for _, second in rows))
    if len(documents) < 2:
        raise UserError(f"{path} holds {len(documents)} different second texts; to find one takes at least 2")
    number = {text: index for index, text in enumerate(documents)}
    pools = []
    for first, second in rows:
        order = torch.randperm(len(documents), generator=generator_for(0, "alignment", first, second)).tolist()
        others = [index for index in order if documents[index] not in answers[first]][: POOL - 1]
        pools.append(np.array([number[second], *others], dtype=np.int64))
    gains = [{number[second]: 1.0} for _, second in rows]
    queries = [first for first, _ in rows]
    return Search(name, queries, documents, gains, pools=pool_table(pools), measures=("top1", "mrr"))


def _rows(path: Path, fields: Mapping[str, tuple[Any, str]]) -> list[tuple[Any, ...]]:
    """The fields of every line that is not blank."""
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = list(file)  # not splitlines(): it also cuts at U+2028, which JSON allows in a string
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    return [_row(line, f"{path} line {n}", fields) for n, line in enumerate(lines, start=1) if line.strip()]


def _row(line: str, where: str, fields: Mapping[str, tuple[Any, str]]) -> tuple[Any, ...]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not valid JSON: {error.msg}") from None
    if not isinstance(row, dict):
        *most, last = fields
        raise UserError(f"{where} must be an object with {', '.join(most)} and {last}, not a {type(row).__name__}")
    for field, (kind, kind_name) in fields.items():
        if field not in row:
            raise UserError(f"{where} has no field {field!r}; it has {', '.join(row) or 'none'}")
        value = row[field]
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is not str and not math.isfinite(value)):
            raise UserError(f"{where}: {field} must be a {kind_name}, not {value!r}")
    return tuple(row[field] for field in fields)
