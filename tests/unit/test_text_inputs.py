"""Texts of any length become rows: nothing is left out unless asked, and what is left out is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.core.experiment import Experiment
from openjepa.data.text.inputs import ReadingReport, TextInputs
from openjepa.evals.features import embed_all
from openjepa.evals.input_rows import InputRows
from openjepa.evals.layers import EMBEDDING, Point, pooled_features, position_features
from openjepa.recipes import lang_jepa
from openjepa.recipes.baselines import mlm, simcse
from tests.tiny import TINY, build_nano, build_tiny

SENTENCE = "The museum opened a new hall for old maps and clocks. "
SHORT, LONG = SENTENCE, (SENTENCE * 30).strip()
WORDS = tuple(setting for setting in TINY if not setting.startswith("predictor."))

BUILDERS: dict[str, Callable[[Path], Experiment]] = {
    "t_jepa": build_tiny,
    "lang_jepa": lambda folder: build_tiny(folder, recipe=lang_jepa),
    "nano_jepa": build_nano,
    "mlm": lambda folder: build_tiny(folder, recipe=mlm, settings=WORDS),
    "simcse": lambda folder: build_tiny(folder, recipe=simcse, settings=WORDS),
}


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def experiment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param))


def inputs_of(experiment: Experiment) -> TextInputs:
    assert isinstance(experiment.embedding.inputs, TextInputs)
    return experiment.embedding.inputs


def embed(experiment: Experiment, texts: list[str], long: str = "windows") -> tuple[np.ndarray, ReadingReport]:
    report = ReadingReport(inputs_of(experiment), long)  # ty: ignore[invalid-argument-type]
    return embed_all(experiment.method, experiment.embedding.inputs, texts, report=report), report


def test_a_text_that_fits_is_one_row_as_in_a_batch(experiment: Experiment) -> None:
    assert [len(windows) for windows in inputs_of(experiment).windows([SHORT])] == [1]
    with torch.no_grad():
        expected = experiment.method.eval().embed(experiment.embedding.inputs([SHORT]))
    np.testing.assert_array_equal(embed(experiment, [SHORT])[0], expected.numpy())


def test_windows_hold_every_token_in_order_and_fit(experiment: Experiment) -> None:
    inputs = inputs_of(experiment)
    [windows] = inputs.windows([LONG])
    assert len(windows) > 1
    longest = max(len(row) for row in windows)
    assert longest <= inputs.max_len
    inputs.collate(windows)  # no row is longer than the batch takes
    read = np.concatenate([inputs.content(row) for row in windows])
    np.testing.assert_array_equal(read, inputs.tokenizer.encode_content([LONG.strip()])[0])


def test_a_long_text_is_the_mean_of_its_windows_weighted_by_tokens(experiment: Experiment) -> None:
    inputs = inputs_of(experiment)
    [windows] = inputs.windows([LONG])
    with torch.no_grad():
        parts = torch.cat([experiment.method.eval().embed(inputs.collate([row])) for row in windows]).numpy()
    tokens = [len(inputs.content(row)) for row in windows]
    vectors, report = embed(experiment, [SHORT, LONG, SHORT])
    np.testing.assert_allclose(vectors[1], np.average(parts, axis=0, weights=tokens), atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    assert (report.texts, report.long_texts, report.tokens_left_out) == (3, 1, 0)


def test_the_tail_counts_unless_it_is_cut(experiment: Experiment) -> None:
    texts = [LONG, LONG + "A zebra plays the violin in a submarine. " * 20]
    whole, _ = embed(experiment, texts)
    cut, report = embed(experiment, texts, "cut")
    assert np.abs(whole[0] - whole[1]).max() > 1e-4
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-6)
    first = [inputs_of(experiment).windows([text])[0][0] for text in texts]
    left = report.tokens - sum(len(inputs_of(experiment).content(row)) for row in first)
    assert (report.long_texts, report.tokens_left_out) == (2, left)
    assert f"2 of 2 texts are longer than {report.inputs.max_len} tokens" in report.sentences()[0]
    assert f"{100 * left / report.tokens:.1f} %" in report.sentences()[0]


def test_a_text_without_a_token_has_a_zero_vector(experiment: Experiment) -> None:
    vectors, report = embed(experiment, ["", SHORT, "  \n"])
    assert vectors.any(axis=1).tolist() == [False, True, False]
    assert report.sentences()[0] == "2 of 3 texts are empty: their vectors are zero"
    assert not embed(experiment, [""])[0].any()


def test_layers_read_long_texts_as_the_embedding_does(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path)
    found = pooled_features(experiment, [SHORT, LONG])
    last = max(point.layer for point in found if point.encoder == "student")
    np.testing.assert_allclose(found[Point("student", last, "mean")], found[EMBEDDING], atol=1e-5)
    positions = position_features(experiment, [SHORT, LONG], "student", last)
    [windows] = inputs_of(experiment).windows([LONG])
    assert positions.valid[1].sum() == sum(map(len, windows))
    largest = positions.latents[1][positions.valid[1]].max(axis=0)
    np.testing.assert_allclose(found[Point("student", last, "max")][1], largest, atol=5e-3)


def test_rows_are_read_by_length_and_returned_in_order() -> None:
    rows = InputRows.of(lambda texts: texts, ["ccc", "a", "bb"])  # ty: ignore[invalid-argument-type]
    assert [batch for _, batch in rows.batches(32)] == [["a", "bb"], ["ccc"]]
    assert [numbers for numbers, _ in rows.batches(32)] == [[1, 2], [0]]
    np.testing.assert_array_equal(rows.means(np.array([[3.0], [1.0], [2.0]])), [[3], [1], [2]])
