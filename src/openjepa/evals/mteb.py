"""Tasks of the `mteb` package (Muennighoff et al. 2023), on a run's vectors, if that package is installed.

By the interface of mteb 2: an encoder gets batches of {"text": [...]} and returns an array. The package is no
dependency: it requires sentence-transformers and downloads its data. It reports one main score a task, without test
items, so there is no interval and no verdict.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from openjepa.core.errors import UserError
from openjepa.core.tasks import Benchmark
from openjepa.evals.features import cosine_rows, inner_products, unit_rows

Embed = Callable[[Sequence[str]], np.ndarray]  # N texts -> [N, D]


class MtebEncoder:
    """An implementation of mteb's `EncoderProtocol`, with cosines as similarity."""

    def __init__(self, embed: Embed, meta: Any) -> None:
        self.embed = embed
        self.mteb_model_meta = meta

    def encode(self, inputs: Iterable[dict[str, Any]], **_about_the_task: Any) -> np.ndarray:
        """[N, D] of all texts in the batches. Prompts and names of tasks are ignored: no recipe has prompts."""
        return self.embed([text for batch in inputs for text in batch["text"]])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        return inner_products(unit_rows(np.atleast_2d(embeddings1)), unit_rows(np.atleast_2d(embeddings2)))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        return cosine_rows(np.atleast_2d(embeddings1), np.atleast_2d(embeddings2))


def mteb_task(task: str, name: str) -> Benchmark:
    """The task of this name. Raises UserError if the package is missing or does not know it."""
    try:
        mteb = importlib.import_module("mteb")
        meta = importlib.import_module("mteb.models.model_meta").ModelMeta
    except ImportError:
        raise UserError("tasks of kind mteb need the package: pip install 'mteb>=2'") from None
    try:
        mteb.get_task(task)
    except (KeyError, ValueError) as error:
        raise UserError(f"mteb has no task {task!r} ({' '.join(str(error).split())[:200]})") from None

    def run_task(embed: Embed) -> dict[str, float]:
        encoder = MtebEncoder(embed, meta.create_empty(overwrites={"name": "openjepa/run", "revision": "local"}))
        settings = {"cache": None, "overwrite_strategy": "always", "co2_tracker": False}
        try:
            results = mteb.evaluate(encoder, mteb.get_task(task), **settings)
        except UserError:
            raise
        except Exception as error:  # no network, a broken download, ...: mteb and its clients share no base class
            raise UserError(f"mteb could not run {task!r}: {' '.join(str(error).split())[:300]}") from error
        return {"main": float(results.task_results[0].get_score())}

    return Benchmark(name, run_task)
