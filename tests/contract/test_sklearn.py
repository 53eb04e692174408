"""A run inside scikit-learn: its estimator checks, pipelines, tables, copies and pickles."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import Tags, get_tags
from sklearn.utils.estimator_checks import check_estimator

from openjepa import api
from openjepa.core.errors import ReadingWarning, UserError
from openjepa.sklearn import Embedder
from tests.tiny import IMAGE, TINY

TEXTS = ["the gull is over the harbour", "an onion is in the soup", "a tide at the anchor", "bread and butter"] * 6
LABELS = ["sea", "kitchen"] * 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    settings = [*TINY, "train.steps=2", "train.health_samples=1"]
    return api.train("t_jepa", out=tmp_path_factory.mktemp("runs") / "text", overrides=settings, progress=False)


class RowsAsTexts(Embedder):
    """The checks send tables of numbers: each row is read as a text, so that they have something to say."""

    def transform(self, X: Any) -> np.ndarray:
        return super().transform([" ".join(map(str, np.asarray(row).ravel())) for row in X])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        return tags


NOT_FOR_TEXTS = {"check_estimator_sparse_tag": "fit learns nothing and does not look at what it is given"}


def checked(estimator: Embedder) -> dict[str, str]:
    """Names of scikit-learn's checks, and how each went."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        warnings.simplefilter("ignore", ReadingWarning)  # the checks' rows hold digits that the tokenizer lacks
        results = check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=NOT_FOR_TEXTS)
    return {result["check_name"]: result["status"] for result in results}


def test_estimator_checks_pass(run: api.Run) -> None:
    """All that scikit-learn has for such a transformer, but those listed with a reason; and those do fail."""
    went = checked(RowsAsTexts(run.path))
    assert {name for name, status in went.items() if status not in ("passed", "skipped")} == set(NOT_FOR_TEXTS)
    assert {went[name] for name in NOT_FOR_TEXTS} == {"xfail"}
    assert {"check_estimator_cloneable", "check_methods_subset_invariance", "check_methods_sample_order_invariance",
            "check_dict_unchanged", "check_fit_idempotent", "check_transformer_general", "check_estimators_pickle",
            "check_transformers_unfitted_stateless"} <= {name for name in went if went[name] == "passed"}  # fmt: skip


def test_tags_say_what_it_reads(run: api.Run) -> None:
    tags = get_tags(Embedder(run.path))
    assert (tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array) == (True, True, False)
    assert set(checked(Embedder(run.path)).values()) == {"passed"}


def test_vectors_are_those_of_the_run(run: api.Run) -> None:
    expected = run.encode(TEXTS)
    frame = pd.DataFrame({"text": TEXTS})
    for given in (TEXTS, tuple(TEXTS), np.array(TEXTS), frame["text"], frame, np.array(TEXTS, object)[:, None]):
        found = Embedder(run.path).fit(given).transform(given)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)
    assert np.array_equal(Embedder(run.path).fit_transform(TEXTS), expected)


def test_fewer_dimensions(run: api.Run) -> None:
    found = Embedder(run.path, dims=8).fit_transform(TEXTS)
    assert np.array_equal(found, run.encode(TEXTS)[:, :8])
    with pytest.raises(UserError, match="dimensions"):
        Embedder(run.path, dims=33).fit(TEXTS)


def test_what_cannot_be_read_is_said(run: api.Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        Embedder(tmp_path).fit(TEXTS)
    with pytest.raises(UserError, match="single text"):
        Embedder(run.path).transform("one text")
    with pytest.raises(UserError, match=r"position 1 \(None\)"):
        Embedder(run.path).transform(["a text", None])
    with pytest.raises(UserError, match="has no prompt 'query'"):
        Embedder(run.path, prompt="query").transform(TEXTS)


def test_a_pipeline_learns_and_is_scored(run: api.Run) -> None:
    model = make_pipeline(Embedder(run.path), LogisticRegression(C=100.0, max_iter=1000))
    scores = cross_val_score(model, TEXTS, LABELS, cv=3)
    assert scores.shape == (3,)
    assert (model.fit(TEXTS, LABELS).predict(TEXTS) == LABELS).mean() > 0.9  # four texts: separable in 32 dimensions


def test_a_column_of_a_table(run: api.Run) -> None:
    """A text column beside another, given as one name or as a list of it."""
    frame = pd.DataFrame({"body": TEXTS, "queue": LABELS})
    for column in ("body", ["body"]):
        columns = ColumnTransformer(
            [("text", Embedder(run.path, dims=4), column), ("queue", OneHotEncoder(), ["queue"])]
        )
        columns.set_output(transform="default")
        table = columns.fit_transform(frame)
        assert np.array_equal(table[:, :4], run.encode(TEXTS)[:, :4])
        assert list(columns.get_feature_names_out()) == [
            "text__embedder0", "text__embedder1", "text__embedder2", "text__embedder3",
            "queue__queue_kitchen", "queue__queue_sea",
        ]  # fmt: skip


def test_output_as_a_table(run: api.Run) -> None:
    frame = pd.DataFrame({"body": TEXTS}, index=range(100, 100 + len(TEXTS)))
    table = Embedder(run.path).set_output(transform="pandas").fit_transform(frame["body"])
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == [f"embedder{number}" for number in range(32)]
    assert list(table.index) == list(frame.index)
    assert np.array_equal(table.to_numpy(), run.encode(TEXTS))


def test_copies_and_pickles_hold_settings_only(run: api.Run) -> None:
    fitted = Embedder(str(run.path), dims=8, device="cpu").fit(TEXTS)
    pickled = pickle.dumps(fitted)
    assert len(pickled) < 1000  # no network: that has more parameters
    assert clone(fitted).get_params() == fitted.get_params()
    for copy in (pickle.loads(pickled), clone(fitted)):
        assert np.array_equal(copy.transform(TEXTS), fitted.transform(TEXTS))


def test_a_pickle_is_opened_in_another_process(run: api.Run, tmp_path: Path) -> None:
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(Embedder(str(run.path))))
    code = (
        "import pickle, sys; import numpy as np; model = pickle.load(open(sys.argv[1], 'rb'));"
        "np.save(sys.argv[2], model.transform(['a tide at the anchor']))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "model.pickle"), str(tmp_path / "vectors.npy")]
    subprocess.run(words, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), run.encode(TEXTS[2:3]), atol=1e-6)


def test_another_setting_opens_the_run_anew(run: api.Run, tmp_path: Path) -> None:
    model = Embedder(run.path).fit(TEXTS)
    with pytest.raises(UserError, match="not a run folder"):
        model.set_params(run=tmp_path).transform(TEXTS)
    assert model.set_params(run=run.path, precision="bf16").transform(TEXTS).shape == (len(TEXTS), 32)


def test_images(tmp_path: Path) -> None:
    settings = [*IMAGE, "train.steps=1", "train.health_samples=1"]
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    run = api.train("i_jepa", out=tmp_path / "run", overrides=settings, progress=False)
    model = Embedder(run.path).fit(images)
    for given in (images, list(images)):
        assert np.array_equal(model.transform(given), run.encode(list(images)))
    assert len(model.get_feature_names_out()) == 32
