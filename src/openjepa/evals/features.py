"""Embedders: from inputs to one vector each, the interface between evaluations and models.

Every evaluation takes an `Embedder`, so a trained encoder, its initialisation and TF-IDF (sparse rows) are evaluated by
the same function. `embed_all` embeds inputs by a method. It reads long texts in windows (`data.text.inputs`), sorts
rows by length, so that a batch has little padding, and returns vectors in the caller's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import torch
from scipy import sparse

from openjepa.core.batch import Batch
from openjepa.core.compute import ON_CPU, Compute
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.method import Method
from openjepa.data.text.inputs import ReadingReport
from openjepa.evals.input_rows import BATCH_TOKENS, InputRows
from openjepa.models.sentence_head import in_bf16

Vectors = np.ndarray | sparse.csr_array  # [N, D]
Labels = Sequence[int] | np.ndarray  # [N]
Embedder = Callable[[Sequence[Any]], Vectors]  # N inputs -> [N, D]


def embed_all(
    method: Method,
    prepare: Callable[[Sequence[Any]], Batch],
    inputs: Sequence[Any],
    batch_tokens: int = BATCH_TOKENS,
    compute: Compute = ON_CPU,
    report: ReadingReport | None = None,
) -> np.ndarray:
    """[N, D] float32, row i = the embedding of inputs[i], in eval mode and without gradients.

    Texts read through `TextInputs` may have any length, and one without a token has a zero vector. The method must
    already be on the device of `compute`. The training flag of every submodule is restored: a teacher in eval mode
    stays in it. `report` counts what was read, and decides whether long texts are cut. Raises UserError if there are no
    inputs.
    """
    if len(inputs) == 0:
        raise UserError("there is nothing to embed: the list of inputs is empty")
    rows = InputRows.of(prepare, inputs, report)
    vectors: np.ndarray | None = None  # [R, D]
    with evaluating(method, compute):
        for numbers, batch in rows.batches(batch_tokens):
            part = method.embed(batch.to(compute.device)).float().cpu().numpy()  # [B, D]
            vectors = np.empty((len(rows.rows), part.shape[1]), dtype=np.float32) if vectors is None else vectors
            vectors[numbers] = part
    assert vectors is not None
    return rows.means(vectors)


def with_bf16_weights(experiment: Experiment) -> Experiment:
    """A copy of the experiment for embedding on the CPU whose weights are bfloat16: no cast at every product.

    Heads behind the pooling stay in fp32, as the pooling is. Only for inputs of token ids.
    """
    return replace(experiment, method=in_bf16(experiment.method), compute=ON_CPU)


def embedder_of(
    experiment: Experiment, batch_tokens: int = BATCH_TOKENS, report: ReadingReport | None = None
) -> Callable[[Sequence[Any]], np.ndarray]:
    """The embedder of an experiment's method, on its device; `report` as for `embed_all`."""
    method = experiment.method
    read = experiment.embedding.inputs
    compute = experiment.compute
    return lambda inputs: embed_all(method, read, inputs, batch_tokens, compute, report)


def query_vectors(method: Method, vectors: np.ndarray) -> np.ndarray:
    """Embeddings of texts [N, D] as those of queries [N, D]; the same ones for most methods."""
    device = next(method.parameters()).device
    with torch.inference_mode():
        return method.as_queries(torch.from_numpy(vectors).to(device)).float().cpu().numpy()


def input_key(inputs: Sequence[Any]) -> Any:
    """Equal for lists of the same inputs: texts by content, others by identity."""
    return tuple(inputs) if all(isinstance(item, str) for item in inputs) else id(inputs)


@overload
def unit_rows(vectors: np.ndarray) -> np.ndarray: ...


@overload
def unit_rows(vectors: Vectors) -> Vectors: ...


def unit_rows(vectors: Vectors) -> Vectors:
    """[N, D] -> rows of length 1 in float64; a zero row stays zero, so its cosine with anything is 0."""
    vectors = vectors.astype(np.float64)
    lengths = np.sqrt((vectors * vectors).sum(axis=1))  # [N]
    scale = 1 / np.where(lengths > 0, lengths, 1)
    return vectors * scale[:, None] if isinstance(vectors, np.ndarray) else sparse.diags_array(scale) @ vectors


def cosine_rows(first: Vectors, second: Vectors) -> np.ndarray:
    """[N, D], [N, D] -> [N] cosine of row i with row i, in [-1, 1]."""
    return (unit_rows(first) * unit_rows(second)).sum(axis=1)


def inner_products(first: Vectors, second: Vectors) -> np.ndarray:
    """[N, D], [M, D] -> [N, M], dense; of `unit_rows`, these are cosines."""
    product = first @ second.T
    return product if isinstance(product, np.ndarray) else product.toarray()


def require_finite(vectors: Vectors, source: str) -> None:
    """Raises UserError naming `source` if any of `vectors` holds NaN or infinity."""
    if not np.isfinite(vectors if isinstance(vectors, np.ndarray) else vectors.data).all():
        raise UserError(f"{source} gives vectors with NaN or infinity, which are of no use; train it anew")
