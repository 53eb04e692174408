"""A run as a scikit-learn transformer: texts or images in, float32 vectors out.

    from openjepa.sklearn import Embedder

    model = make_pipeline(Embedder("runs/mine"), LogisticRegression())

The encoder is not trained here: `fit` only opens the run. So the same vectors come out in every fold of a
cross-validation, and nothing of a test set reaches them through the pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from openjepa.core.errors import UserError
from openjepa.encoding.compact import Compaction
from openjepa.evals.input_rows import BATCH_TOKENS
from openjepa.run.opened import Run, load
from openjepa.run.vectors import DEFAULT_PROMPT

__all__ = ["Embedder"]


class Opened(NamedTuple):
    """A run that was opened with these settings, and the length of its vectors."""

    settings: tuple[str, str, str, bool]
    run: Run
    full_dim: int


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Vectors of a run's encoder, [N, D] float32.

    Args:
        run: a run folder, or "owner/name" of a run on the hub.
        prompt: the name of a prompt of the sentence-transformers model that the run started from; None = its default.
        dims: keep the first so many dimensions; None = all. See `train.matryoshka`.
        batch_tokens: tokens embedded at once, with padding.
        device: auto, cpu, cuda, cuda:1 or mps; see `openjepa.load`.
        precision: auto, 32 or bf16.
        trust_code: let the run import code of its own, as `openjepa.load`.

    Only these settings are copied and pickled. The network is loaded when it is first needed, in each process anew.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        prompt: str | None = None,
        dims: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        device: str = "auto",
        precision: str = "auto",
        trust_code: bool = False,
    ) -> None:
        self.run = run
        self.prompt = prompt
        self.dims = dims
        self.batch_tokens = batch_tokens
        self.device = device
        self.precision = precision
        self.trust_code = trust_code

    def fit(self, X: Any, y: Any = None) -> Self:
        """Open the run and check the settings; nothing is learned.

        Raises UserError if there is no such run, or it has fewer than `dims` dimensions.
        """
        self._compaction()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """One vector an input, [N, D]: of texts in a list, Series, array or table of one column; or of images.

        Raises UserError naming the position of an item that is no text, or no image.
        """
        if isinstance(X, str):
            raise UserError("a single text was given; give a list of texts")
        prompt = DEFAULT_PROMPT if self.prompt is None else self.prompt
        vectors = self._opened_run().run.encode(_one_axis(X), batch_tokens=self.batch_tokens, prompt=prompt)
        return self._compaction().cut(vectors)

    @property
    def _n_features_out(self) -> int:
        """For `get_feature_names_out`: embedder0, embedder1, ..."""
        return self._compaction().kept

    def _compaction(self) -> Compaction:
        """Which dimensions are kept of how many."""
        _, run, full_dim = self._opened_run()
        return Compaction(full_dim, self.dims, unit_length=run.experiment.embedding.normalization == "unit")

    def _opened_run(self) -> Opened:
        """The run and its network; opened anew if a setting has changed."""
        settings = (str(self.run), self.device, self.precision, self.trust_code)
        if getattr(self, "_opened", None) is None or self._opened.settings != settings:
            run = load(*settings)
            self._opened = Opened(settings, run, run.vector_dim())
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_opened"}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []  # vectors are float32, whatever comes in
        tags.requires_fit = False
        tags.no_validation = True
        return tags


def _one_axis(X: Any) -> Any:
    """A column of an array of objects or texts, as a `ColumnTransformer` cuts it, is a list of them."""
    is_column = isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUT"
    return X[:, 0] if is_column else X
