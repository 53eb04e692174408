"""Laws of the probes: a planted factor is found, noise stays at chance, k-NN equals scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Classification, Triplets
from openjepa.evals.baselines import majority, tfidf, tfidf_for
from openjepa.evals.probes import TEMPERATURE, knn, logistic, validation_rows

Planted = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def planted(signal: float, classes: int = 4, dims: int = 32, seed: int = 0) -> Planted:
    """[600, D] and [400, D] features, each class shifted by `signal` along its own direction, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=1000)
    x = rng.normal(size=(1000, dims)) + signal * rng.normal(size=(classes, dims))[labels]
    x = (x * np.geomspace(1, 100, dims) + 5).astype(np.float32)  # unequal scales, off centre
    return x[:600], labels[:600], x[600:], labels[600:]


def test_logistic_recovers_a_planted_factor_despite_unequal_scales() -> None:
    score = logistic(*planted(signal=1.0))
    assert score.value > 0.95
    assert score.items.shape == (400,)
    assert score.chance == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("probe", [knn, logistic])
def test_probes_stay_at_chance_on_noise(probe) -> None:
    values = [probe(*planted(signal=0.0, seed=seed)).value for seed in range(5)]
    assert np.mean(values) == pytest.approx(0.25, abs=0.03)


def test_logistic_ignores_affine_changes_of_the_features() -> None:
    train, labels, test, test_labels = planted(signal=0.3)
    plain = logistic(train, labels, test, test_labels)
    moved = logistic(train * 7 - 3, labels, test * 7 - 3, test_labels)
    assert abs(plain.value - moved.value) <= 0.01


def test_constant_features_give_the_majority() -> None:
    labels = [0] * 30 + [1] * 10
    score = logistic(np.ones((40, 3)), labels, np.ones((20, 3)), [0] * 5 + [1] * 15)
    assert score.value == score.chance == 0.25


def test_regularisation_is_never_chosen_on_test() -> None:
    train, labels, test, test_labels = planted(signal=0.2)
    flipped = logistic(train, labels, test, (test_labels + 1) % 4)
    right = logistic(train, labels, test, test_labels)
    assert not (right.items * flipped.items).any()  # the same guesses, whatever the test labels


def test_knn_equals_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    train, labels, test, test_labels = planted(signal=0.4)
    reference = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / TEMPERATURE)
    ).fit(train, labels)
    expected = reference.predict(test) == test_labels
    assert 0.3 < expected.mean() < 0.95
    np.testing.assert_array_equal(knn(train, labels, test, test_labels).items, expected)


def test_knn_looks_at_direction_only_and_copes_with_less_than_k_rows() -> None:
    train, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), [7, 3]
    score = knn(train, labels, np.array([[100.0, 1.0], [0.001, 0.1]]), [7, 3])
    np.testing.assert_array_equal(score.items, [1, 1])


@pytest.mark.parametrize("probe", [knn, logistic])
def test_sparse_features_are_accepted(probe) -> None:
    texts = [f"the {animal} {verb} s{n}" for n in range(20) for animal in ("cat", "dog") for verb in ("sat", "ran")]
    labels = ["cat" in text for text in texts]
    embed = tfidf(texts)
    assert isinstance(embed(texts), sparse.csr_array)
    assert probe(embed(texts[:60]), labels[:60], embed(texts[60:]), labels[60:]).value == 1.0


def test_validation_takes_a_fifth_of_each_class_and_never_all_of_it() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    held_out = validation_rows(labels, generator_for(0, "test"))
    assert [int(held_out[labels == c].sum()) for c in range(4)] == [20, 2, 1, 0]


def test_too_little_to_learn_from_is_said() -> None:
    with pytest.raises(UserError, match="two classes"):
        logistic(np.ones((4, 2)), [1, 1, 1, 1], np.ones((1, 2)), [1])
    with pytest.raises(UserError, match="two training inputs"):
        logistic(np.eye(3), [0, 1, 2], np.eye(3), [0, 1, 2])


def test_majority_names_the_commonest_class_of_train() -> None:
    assert majority([0, 1, 1], [1, 0, 0, 0]) == 0.25


def test_tfidf_sees_single_characters_and_not_word_order() -> None:
    rows = sparse.csr_array(tfidf(["a 3 b", "a 4 b", "b 3 a"])(["a 3 b", "b 3 a", "a 4 b"])).toarray()
    np.testing.assert_allclose(rows[0], rows[1])
    assert not np.allclose(rows[0], rows[2])


def test_tfidf_is_fitted_on_training_texts_only() -> None:
    topic = Classification("topic", ["red fox", "blue sky"], [0, 1], ["unseen words"], [0], ("fox", "sky"))
    order = Triplets("triplets", ["green"], ["grass"], ["sea"])
    embed = tfidf_for([topic, order])
    assert sparse.csr_array(embed(["unseen words"])).nnz == 0
    assert sparse.csr_array(embed(["green grass", "red sky"])).nnz == 4


def test_tfidf_refuses_what_it_cannot_read() -> None:
    with pytest.raises(UserError, match="ndarray"):
        tfidf([np.zeros(3)])  # ty: ignore[invalid-argument-type]
    with pytest.raises(UserError, match="no words"):
        tfidf(["?!", "..."])
