"""Probes of frozen features: k nearest neighbours (k-NN) and logistic regression.

k-NN tests whether inputs of one class are near each other; the linear probe tests whether the class is encoded at all.
Both use the same features. The linear probe chooses its regularisation on a fifth of train and uses test once.
Cost on one core for 2000 x 128 features: k-NN 0.05 s; logistic 0.1 s for 3 classes, 0.2 s for 12, 0.5 s for 100.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for
from openjepa.evals.baselines import majority
from openjepa.evals.features import Labels, Vectors, inner_products, unit_rows
from openjepa.evals.scores import Score

TEMPERATURE = 0.07  # of the k-NN vote (Caron et al. 2021, DINO)
STRENGTHS = (1.0, 10.0, 100.0)  # values of C to choose from, for features whose rows have length about 1
HELD_OUT = 0.2  # part of train that chooses
ROWS_AT_ONCE = 1024  # test rows per block of the k-NN cosine matrix


def knn(train: Vectors, train_labels: Labels, test: Vectors, test_labels: Labels, k: int = 20) -> Score:
    """Accuracy in [0, 1] of a vote of the `k` training rows with the highest cosine; chance is the majority class.

    A neighbour's vote weighs exp(cosine / 0.07) (Caron et al. 2021), so nearer ones count more and ties hardly occur.
    """
    classes, labels = np.unique(train_labels, return_inverse=True)  # [C], [N]
    train = unit_rows(train)
    test = unit_rows(test)
    k = min(k, len(labels))
    guesses = []
    for start in range(0, test.shape[0], ROWS_AT_ONCE):
        cosines = inner_products(test[start : start + ROWS_AT_ONCE], train)  # [B, N]
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]  # [B, k]
        weights = np.exp((np.take_along_axis(cosines, nearest, axis=1) - 1) / TEMPERATURE)  # [B, k]
        votes = np.zeros((len(nearest), len(classes)))  # [B, C]
        np.add.at(votes, (np.arange(len(nearest))[:, None], labels[nearest]), weights)
        guesses.append(classes[votes.argmax(axis=1)])
    return _score(np.concatenate(guesses), train_labels, test_labels)


def logistic(train: Vectors, train_labels: Labels, test: Vectors, test_labels: Labels, seed: int = 0) -> Score:
    """Accuracy in [0, 1] of multinomial logistic regression with L2; chance is the majority class.

    Dense features are standardised with train's mean and deviation; sparse rows stay as they are (centring would make
    them dense, scaling would inflate rare words). C is the best of three on held-out train rows, the strongest
    regularisation on a tie; then all of train is fitted. Raises UserError if train holds too little to choose from.
    """
    labels = np.asarray(train_labels)
    held_out = validation_rows(labels, generator_for(seed, "logistic", "validation"))  # [N] bool
    if len(np.unique(labels)) < 2 or not held_out.any():
        raise UserError("a probe needs two classes, and two training inputs of one of them")
    return _score(_select_and_fit(train, labels, test, held_out), train_labels, test_labels)


def _score(guesses: np.ndarray, train_labels: Labels, test_labels: Labels) -> Score:
    right = (guesses == np.asarray(test_labels)).astype(np.float64)  # [N]
    return Score(right, chance=majority(train_labels, test_labels))


def _select_and_fit(train: Vectors, labels: np.ndarray, test: Vectors, held_out: np.ndarray) -> np.ndarray:
    """[N] guesses for test. Each fit starts from the last one's weights, which saves half of the steps."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    squared_length = train.shape[1] if isinstance(train, np.ndarray) else 1  # of a scaled row, on average
    tolerance = 1e-4 * squared_length**0.5  # on the gradient, which grows with the rows
    model = LogisticRegression(max_iter=100, tol=10 * tolerance, warm_start=True)  # rough for choosing C
    fit_part, held_part = _scaled(train[~held_out], train[held_out])
    right = []
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):  # L-BFGS steps are too small to share out
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping at 100 iterations is a choice, not a fault
        for strength in STRENGTHS:
            model.set_params(C=strength / squared_length).fit(fit_part, labels[~held_out])
            right.append(np.sum(model.predict(held_part) == labels[held_out]))
        train, test = _scaled(train, test)
        model.set_params(C=STRENGTHS[int(np.argmax(right))] / squared_length, tol=tolerance)
        return model.fit(train, labels).predict(test)


def _scaled(train: Vectors, test: Vectors) -> tuple[Vectors, Vectors]:
    if not isinstance(train, np.ndarray):
        return train, test
    mean = train.mean(axis=0)  # [D]
    deviation = train.std(axis=0)  # [D]
    deviation = np.where(deviation > 0, deviation, 1)
    return (train - mean) / deviation, (test - mean) / deviation


def validation_rows(labels: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """[N] bool: about a fifth of each class, and never all of it."""
    shuffled = torch.randperm(len(labels), generator=generator).numpy()
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        held_out[members[: min(len(members) - 1, int(np.ceil(HELD_OUT * len(members))))]] = True
    return held_out
