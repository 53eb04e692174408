"""Laws of cosines: equality with SciPy, ties, and no cosine without its random pairs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from openjepa.cli.evaluate import named_files
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


def test_similar_gives_each_cosine_its_position_among_random_pairs() -> None:
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


BENCHMARK = (
    'main-captions\tMSRvid\t2012test\t0000\t5.000\tA "quoted word opens.\tA man rides.\n'
    "main-news\theadlines\t2015\t0001\t1.20\tIt rains.\tThe sun shines.\thttp://licence\textra\n"
    "main-news\theadlines\t2015\t0002\t3\tA cat sat.\tA dog sat.\n"
)


def test_the_sts_benchmark_as_published_is_read(tmp_path) -> None:
    (tmp_path / "sts-dev.csv").write_text(BENCHMARK)
    (tmp_path / "sts-dev.tsv.gz").write_bytes(gzip.compress(BENCHMARK.encode()))
    expected = Similarity(
        "dev",
        ('A "quoted word opens.', "It rains.", "A cat sat."),
        ("A man rides.", "The sun shines.", "A dog sat."),
        (5.0, 1.2, 3.0),
    )
    assert read_similarity(tmp_path / "sts-dev.csv", "dev") == expected
    assert read_similarity(tmp_path / "sts-dev.tsv.gz", "dev") == expected


def test_rated_pairs_with_a_header(tmp_path) -> None:
    rows = 'score{0}sentence2{0}x{0}sentence1\n3{0}"b{0} or b"{0}{0}a\n' + "2.5{0}d{0}{0}c\n" * 2
    for name, delimiter in (("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t")):
        (tmp_path / name).write_text(rows.format(delimiter))
        read = read_similarity(tmp_path / name)
        assert (read.first, read.second) == (("a", "c", "c"), (f"b{delimiter} or b", "d", "d"))
        assert read.scores == (3.0, 2.5, 2.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence1,text,score\na,b,1\n", "line 1 has no field 'sentence2'; it has sentence1, text, score"),
        ("sentence1,sentence2,score\na,b,1\na,b,high\n", "line 3: score must be a number, not 'high'"),
        ("sentence1,sentence2,score\na,b,nan\n", "line 2: score must be a number, not 'nan'"),
        ("sentence1,sentence2,score\na,b\n", "line 2 has 2 fields; at least 3 are needed"),
        ('sentence1,sentence2,score\na,"b,1\nc,d,2\n', "row with a quote that is not closed (a.csv:2)"),
        (BENCHMARK + "main-news\theadlines\t2015\t0003\t-\ta\tb\n", "line 4: score must be a number, not '-'"),
        (BENCHMARK + "main-news\theadlines\n", "line 4 has 2 fields; at least 7 are needed"),
        ("", "line 1 has no field 'sentence1'; it has none"),
        ("sentence1,sentence2,score\na,b,1\n", "holds 1 pairs"),
    ],
)
def test_rated_pairs_that_are_not_in_order_are_named(tmp_path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError) as error:
        read_similarity(tmp_path / "a.csv")
    assert message in str(error.value)


def test_tasks_of_rated_pairs_are_named_by_their_user(tmp_path) -> None:
    assert named_files(["stsb=a/dev.csv", "b/x.y.jsonl", "c/test.csv.gz"]) == {
        "stsb": Path("a/dev.csv"),
        "x.y": Path("b/x.y.jsonl"),
        "test": Path("c/test.csv.gz"),
    }
    (tmp_path / "a=b.csv").touch()
    assert named_files([str(tmp_path / "a=b.csv")]) == {"a=b": tmp_path / "a=b.csv"}
    with pytest.raises(UserError, match=r"two files are named 'dev'; .*--sts NAME=b/dev\.csv"):
        named_files(["a/dev.csv", "b/dev.csv"])
    for bad in ("default=a.csv", "=a.csv", "a/b=c.csv", "default.csv"):
        with pytest.raises(UserError, match="cannot be named"):
            named_files([bad])


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
