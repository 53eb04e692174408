"""Maps in closed form: equal to plain formulas, discriminants and what gradients find; decisions; latents on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openjepa.adaptation.decision import FEWEST_DOCUMENTS, FEWEST_FOR_PREDICTOR, decided
from openjepa.adaptation.documents import beir_corpus, parts_of, texts
from openjepa.adaptation.latents import BLOCK, encoded
from openjepa.adaptation.maps import PredictorSums, Whitening
from openjepa.adaptation.statistics import Block, Statistics
from openjepa.data.files.records import Counts
from openjepa.data.text.sources import DataConfig
from openjepa.encoding.workers import Encoded, one_process
from openjepa.evals.features import unit_rows

DIM = 8


def documents(count: int, parts: int, spread: float, seed: int = 0) -> Block:
    """Documents with means of their own, whose parts differ by `spread` in the first half of the dimensions."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(count), parts)
    noise = (
        random.standard_normal((count * parts, DIM)) * np.r_[np.full(DIM // 4, spread), np.full(DIM - DIM // 4, 0.1)]
    )
    return Block(unit_rows(random.standard_normal((count, DIM))[owner] + noise), owner)


def halves(block: Block) -> tuple[Block, Block]:
    middle = int(block.owner[len(block.owner) // 2])
    first = block.owner < middle
    return Block(block.parts[first], block.owner[first]), Block(block.parts[~first], block.owner[~first])


def test_blocks_add_up_to_the_plain_formulas() -> None:
    block = documents(50, 4, 0.5)
    lonely = Block(np.r_[block.parts, unit_rows(np.ones((1, DIM)))], np.r_[block.owner, 50])  # left out
    found = Statistics.empty(DIM)
    for half in halves(lonely):
        found = found.merged(Statistics.of(half))
    means = block.parts.reshape(50, 4, DIM).mean(1)
    deviations = block.parts - np.repeat(means, 4, axis=0)
    assert (found.documents, found.parts) == (50, 200)
    np.testing.assert_allclose(found.covariance, deviations.T @ deviations / 200, atol=1e-12)
    np.testing.assert_allclose(found.mean, block.parts.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.total / found.parts, np.cov(block.parts.T, bias=True), atol=1e-12)
    values = np.linalg.eigvalsh(found.covariance)
    shares = values / values.sum()
    assert found.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_cohesion_is_the_intraclass_correlation_and_none_after_shuffling() -> None:
    block = documents(300, 4, 0.5)
    groups = block.parts.reshape(300, 4, DIM)
    between = 4 * ((groups.mean(1) - groups.mean((0, 1))) ** 2).sum() / 299
    within = ((groups - groups.mean(1, keepdims=True)) ** 2).sum() / 900
    assert Statistics.of(block).cohesion == pytest.approx((between - within) / (between + 3 * within))
    shuffled = Block(np.random.default_rng(1).permutation(block.parts), block.owner)
    assert abs(Statistics.of(shuffled).cohesion) < 0.02


def test_whitening_leaves_no_direction_within_documents() -> None:
    block = documents(200, 5, 0.6)
    statistics = Statistics.of(block)
    whitening = Whitening.fitted(statistics, shrinkage=0.0)
    whitened = whitening.matrix.T @ statistics.covariance @ whitening.matrix
    np.testing.assert_allclose(whitened, np.eye(DIM), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(whitening(block.parts), axis=1), 1)
    only_mean = Whitening.fitted(statistics, shrinkage=1.0)(block.parts)
    expected = unit_rows(block.parts - statistics.mean)
    np.testing.assert_allclose(only_mean @ only_mean.T, expected @ expected.T, atol=1e-12)
    assert not whitening(np.zeros((1, DIM))).any()


def test_whitened_directions_are_those_of_linear_discriminants() -> None:
    """The first axes after whitening are LDA's, documents as classes; so they are the best short vectors."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    block = documents(60, 6, 0.6)
    whitening = Whitening.fitted(Statistics.of(block), shrinkage=0.0)
    ours = whitening.matrix
    lda = LinearDiscriminantAnalysis(solver="eigen").fit(block.parts, block.owner)
    for k in range(3):
        theirs = lda.scalings_[:, k]
        cosine = ours[:, k] @ theirs / np.linalg.norm(ours[:, k]) / np.linalg.norm(theirs)
        assert abs(cosine) == pytest.approx(1, abs=1e-6)


def test_gradients_on_linear_two_view_vicreg_find_the_same_directions_at_other_scales() -> None:
    """With fewer outputs than inputs, |Ax - Ax'|^2 under unit variance is least in the span of the generalised
    eigenvectors of (within, total) with the least within. VICReg gives each unit total variance; whitening divides by
    the deviation within documents, which a factor of 1 / sqrt(within / total) tells apart."""
    random = np.random.default_rng(0)
    true = random.standard_normal((400, 4)) @ np.diag([4.0, 3.0, 0.3, 0.2]) @ random.standard_normal((4, 4))
    parts = torch.tensor(true[:, None] + random.standard_normal((400, 2, 4)), dtype=torch.float64)
    parts = parts - parts.mean((0, 1))
    rows = parts.reshape(-1, 4)
    gaps = parts[:, 0] - parts[:, 1]
    total, within = (rows.T @ rows / 800).numpy(), (gaps.T @ gaps / 1600).numpy()
    matrix = torch.tensor(random.standard_normal((4, 2)) / 4, requires_grad=True)
    optimizer = torch.optim.LBFGS([matrix], max_iter=2000, tolerance_grad=1e-9, tolerance_change=1e-14,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        covariance = matrix.T @ torch.from_numpy(total) @ matrix
        value = (gaps @ matrix).square().sum(1).mean() + 25 * (covariance - torch.eye(2)).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    learned = np.linalg.qr(matrix.detach().numpy())[0]

    whitening = Whitening.fitted(Statistics.of(Block(rows.numpy(), np.repeat(np.arange(400), 2))), shrinkage=0.0)
    values = np.diag(whitening.matrix.T @ total @ whitening.matrix)  # total variance in whitened space
    closed = whitening.matrix[:, :2]
    overlap = np.linalg.svd(learned.T @ np.linalg.qr(closed)[0])[1]  # cosines of the angles between the planes
    np.testing.assert_allclose(overlap, 1, atol=1e-4)
    np.testing.assert_allclose(np.diag(closed.T @ within @ closed), 1, atol=1e-9)
    np.testing.assert_allclose(np.diag(closed.T @ total @ closed), values[:2], atol=1e-9)
    variance = np.linalg.eigvalsh(matrix.detach().numpy().T @ total @ matrix.detach().numpy())
    np.testing.assert_allclose(variance, 1, atol=0.1)  # the penalty is soft


def test_the_predictor_is_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    random = np.random.default_rng(0)
    parts, targets = unit_rows(random.standard_normal((300, DIM))), unit_rows(random.standard_normal((300, DIM)))
    sums = PredictorSums(DIM)
    for rows in (slice(0, 100), slice(100, 300)):
        sums.add(parts[rows], targets[rows])
    ridge = 0.1
    strength = ridge * np.trace(parts.T @ parts) / DIM
    expected = Ridge(alpha=strength, fit_intercept=False).fit(parts, targets).coef_.T
    np.testing.assert_allclose(sums.predictor(ridge), expected, atol=1e-9)
    length = np.sqrt(((parts @ expected) ** 2).sum(1).mean())
    np.testing.assert_allclose(sums.query_map(ridge), np.eye(DIM) + expected / length, atol=1e-9)


def statistics(count: int, spread: float = 0.6) -> Statistics:
    return Statistics.of(documents(count, 4, spread))


def test_decisions_and_their_reasons() -> None:
    few = decided(statistics(FEWEST_DOCUMENTS - 1), 1000)
    assert few.kept == "start"
    assert f"needs at least {FEWEST_DOCUMENTS}" in few.reasons[0]
    narrow = statistics(FEWEST_DOCUMENTS, spread=3.0)  # documents differ inside in half of the dimensions only
    broad = statistics(FEWEST_DOCUMENTS, spread=0.1)
    assert narrow.effective_rank / DIM < 0.515 < broad.effective_rank / DIM
    assert decided(narrow, FEWEST_FOR_PREDICTOR).kept == "predictor"
    without = decided(narrow, FEWEST_FOR_PREDICTOR - 1)
    assert without.kept == "whitening"
    assert f"needs at least {FEWEST_FOR_PREDICTOR}" in without.reasons[1]
    assert decided(broad, 1000).kept == "start"
    assert "no gain is expected" in decided(broad, 1000).reasons[0]
    assert decided(broad, 1000, "whitening").kept == "whitening"
    shuffled = documents(300, 4, 3.0)
    mixed = Statistics.of(Block(np.random.default_rng(0).permutation(shuffled.parts), shuffled.owner))
    assert decided(mixed, 1000).kept == "start"
    assert "hardly more alike" in decided(mixed, 1000).reasons[0]


def test_documents_have_titles_and_parts_and_a_beir_folder_is_its_corpus(tmp_path: Path) -> None:
    rows = [
        {"_id": "1", "title": "A title", "text": "One sentence here. Another one here."},
        {"_id": "2", "title": "Twice told", "text": "Twice told. And more of it."},
        {"_id": "3", "title": "Only a title", "text": ""},
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "no document"}')
    assert beir_corpus(str(tmp_path)) == tmp_path / "corpus.jsonl"
    assert beir_corpus(str(tmp_path / "corpus.jsonl")) is None
    counts = Counts()
    data = DataConfig(source=str(tmp_path / "corpus.jsonl"))
    found = list(texts(data, "title", "sentences", counts))
    assert found[0].parts == ("A title", "One sentence here.", "Another one here.")
    assert found[0].whole == "A title One sentence here. Another one here."
    assert found[1].parts == ("Twice told.", "And more of it.")
    assert found[2].parts == (found[2].whole,) == ("Only a title",)
    assert (len(found), counts["documents"]) == (3, 3)
    assert parts_of("One. Two.\n\n Three.\n \nFour.", "paragraphs") == ["One. Two.", "Three.", "Four."]


def test_latents_are_kept_in_order_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openjepa.adaptation.documents import Text

    given = [Text(str(n), f"whole {n}", tuple(f"part {n} {k}" for k in range(n % 4))) for n in range(600)]

    def encode(asked: Any) -> np.ndarray:
        return np.stack([np.random.default_rng(list(text.encode())).standard_normal(DIM) for text in asked])

    encoding = one_process(lambda asked: Encoded(encode(asked), {}))
    latents = encoded(iter(given), encoding, tmp_path, 0.2).latents
    parts = [part for text in given for part in text.parts]
    np.testing.assert_allclose(latents.parts, unit_rows(encode(parts)), atol=1e-3)
    np.testing.assert_allclose(latents.documents, unit_rows(encode([text.whole for text in given])), atol=1e-3)
    assert latents.part_counts.tolist() == [n % 4 for n in range(600)]
    assert 0.1 < latents.held_out.mean() < 0.3
    whole = [(block.parts, block.owner) for block, _ in latents.blocks()]
    assert BLOCK >= 600
    assert len(whole) == 1
    monkeypatch.setattr("openjepa.adaptation.latents.BLOCK", 100)
    pieces = [(block.parts, block.owner) for block, _ in latents.blocks()]
    assert len(pieces) == 6
    for k in range(2):
        np.testing.assert_array_equal(np.concatenate([piece[k] for piece in pieces]), whole[0][k])
    kept = np.concatenate([block.owner for block, _ in latents.blocks(held_out=True)])
    assert latents.held_out[kept].all()
