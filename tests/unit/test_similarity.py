"""Laws of cosines: equality with SciPy, ties, and no cosine without its random pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Similarity, Triplets
from openjepa.evals.similarity import (
    LEAST_BACKGROUND,
    random_pairs,
    read_similarity,
    similar,
    spearman,
    triplet_accuracy,
)


def lookup(inputs) -> np.ndarray:
    """Inputs are vectors already."""
    return np.asarray(inputs, dtype=np.float32)


def noise(count: int, dims: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dims)).astype(np.float32)


def test_triplets_count_nearer_positives_and_no_ties() -> None:
    east, north, north_east = [1, 0], [0, 1], [1, 1]
    task = Triplets("t", [east] * 4, [north_east, north, north, east], [north, north_east, north, [9, 0]])
    score = triplet_accuracy(lookup, task)
    np.testing.assert_array_equal(score.items, [1, 0, 0, 0])
    assert (score.value, score.chance) == (0.25, 0.5)


def test_a_collapsed_encoder_does_not_win_triplets_by_rounding() -> None:
    def collapsed(inputs) -> np.ndarray:
        return 1 + 1e-7 * lookup(inputs)

    task = Triplets("t", *(list(noise(500, seed=seed)) for seed in (1, 2, 3)))
    assert triplet_accuracy(collapsed, task).value == 0.0
    assert triplet_accuracy(lookup, task).value == pytest.approx(0.5, abs=0.08)


def test_spearman_equals_scipy_with_ties_in_the_gold_scores() -> None:
    first, second = noise(200, seed=1), noise(200, seed=2)
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    gold = np.round(5 * cosines + np.random.default_rng(3).normal(size=200))
    score = spearman(lookup, Similarity("s", list(first), list(second), list(gold)))
    assert score.value == pytest.approx(stats.spearmanr(cosines, gold).statistic, abs=1e-12)
    assert score.chance == 0


def test_spearman_of_constant_cosines_is_zero() -> None:
    ones = [[1, 1]] * 5
    assert spearman(lookup, Similarity("s", ones, ones, [1, 2, 3, 4, 5])).value == 0.0


def test_random_pairs_of_isotropic_vectors_and_of_a_narrow_cone() -> None:
    mean, std = random_pairs(noise(2000, dims=64), generator_for(0, "a"))
    assert mean == pytest.approx(0, abs=0.01)
    assert std == pytest.approx(64**-0.5, rel=0.05)  # cosine of random directions has variance 1 / D
    assert random_pairs(noise(2000, dims=64) + 10, generator_for(0, "a"))[0] > 0.95


def test_random_pairs_never_pair_a_row_with_itself() -> None:
    assert random_pairs(np.eye(3), generator_for(0, "a")) == (0.0, 0.0)
    with pytest.raises(UserError, match="--background FILE"):
        random_pairs(np.eye(2), generator_for(0, "a"))


def test_similar_gives_each_cosine_its_place_among_random_pairs() -> None:
    near = noise(1)[0]
    opposite = -near
    background = noise(1000, seed=5)
    result = similar(["near", "nearer", "opposite"], np.stack([near, 1.01 * near, opposite]), background)
    json.dumps(result)
    cosine, z, percentile = (np.array(result[key]) for key in ("cosine", "z", "percentile"))
    random = result["random_pairs"]
    assert cosine[0, 1] == pytest.approx(1)
    assert cosine[0, 2] == pytest.approx(-1)
    np.testing.assert_allclose(z, (cosine - random["mean"]) / random["std"])
    assert percentile[0, 1] == 100
    assert percentile[0, 2] == 0


def test_similar_of_a_collapsed_encoder_shows_no_distinction() -> None:
    result = similar(["a", "b"], np.ones((2, 4)), np.ones((LEAST_BACKGROUND, 4)))
    assert np.allclose(result["cosine"], 1)
    assert np.abs(result["z"]).max() < 0.01
    assert np.max(result["percentile"]) == 0


def test_similar_refuses_nan() -> None:
    with pytest.raises(UserError, match="NaN"):
        similar(["a"], np.full((1, 2), np.nan), np.ones((LEAST_BACKGROUND, 2)))


def test_a_few_random_pairs_have_no_percentages() -> None:
    few, enough = (similar(["a", "b"], noise(2), noise(n, seed=5)) for n in (LEAST_BACKGROUND - 1, LEAST_BACKGROUND))
    assert few["percentile"] is None
    assert few["random_pairs"]["pairs"] == (LEAST_BACKGROUND - 1) * (LEAST_BACKGROUND - 2) // 2
    assert np.isfinite(few["z"]).all()
    assert np.shape(enough["percentile"]) == (2, 2)


def test_read_similarity(tmp_path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = {"sentence1": "a", "sentence2": "b", "score": 3}
    path.write_text("\n".join([json.dumps({**good, "extra": 1})] * 3) + "\n\n")
    assert read_similarity(path, "sts") == Similarity("sts", ("a",) * 3, ("b",) * 3, (3.0,) * 3)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ('{"sentence1": "a", "score": 1}', "sentence2"),
        ('{"sentence1": "a", "sentence2": "b"}', "score"),
        ('{"sentence1": "a", "sentence2": "b", "score": "high"}', "score must be a number"),
        ('{"sentence1": "a", "sentence2": "b", "score": true}', "score must be a number"),
        ('{"sentence1": "a", "sentence2": "b", "score": NaN}', "score must be a number"),
        ('{"sentence1": 5, "sentence2": "b", "score": 1}', "sentence1 must be a text"),
        ("not json", "valid JSON"),
        ("[1]", "list"),
    ],
)
def test_bad_lines_are_named_by_file_line_and_field(tmp_path, line: str, names: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"sentence1": "a", "sentence2": "b", "score": 3}\n' + line)
    with pytest.raises(UserError, match=names) as error:
        read_similarity(path)
    assert f"{path} line 2" in str(error.value)


def test_missing_and_short_files_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl"):
        read_similarity(tmp_path / "none.jsonl")
    (tmp_path / "short.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 3}\n')
    with pytest.raises(UserError, match=r"short\.jsonl holds 1 pairs"):
        read_similarity(tmp_path / "short.jsonl")


def test_separators_inside_a_string_and_a_byte_order_mark_are_read(tmp_path) -> None:
    file = tmp_path / "pairs.jsonl"
    row = '{"sentence1": "one\u2028line\u0085still", "sentence2": "b", "score": 1}\n'
    file.write_text(row * 3, encoding="utf-8-sig")
    assert list(read_similarity(file).first) == ["one\u2028line\u0085still"] * 3
