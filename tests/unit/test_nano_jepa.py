"""Laws of nanoJEPA: its data, its losses, its targets, its tasks; and planted defects that the preflight must name."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Prediction, Retrieval, Vectors
from openjepa.data.loading.loader import train_batches
from openjepa.data.questions.batches import QuestionBatch, TokenizedQuestions
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.evals.suite import evaluate
from openjepa.masking.attention import PRED, question_answer_mask, segment_ids
from openjepa.objectives.running import RunningSpace
from openjepa.preflight.checks import check_experiment, failed
from openjepa.recipes import nano_jepa
from openjepa.recipes.nano_jepa import NanoJEPA
from openjepa.tasks.questions import draw_pools, nearest_texts
from tests.planted import STILL, failing
from tests.tiny import build_nano


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return build_nano(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def batch(experiment: Experiment) -> QuestionBatch:
    return next(train_batches(experiment, 0))


def jsonl(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows), encoding="utf-8")
    return path


VARIANTS = {
    "as shipped": (),
    "the original": ("target_encoder=self", "target_space=raw", "regularizer.name=none"),
    "a plain language model": ("weight=0", "target_encoder=self", "regularizer.name=none"),
    "sigreg, mse": ("regularizer.name=sigreg", "objective=mse", "target_space=centered"),
    "loss dropout": ("loss_dropout=0.5", "decoder.dropout=0.1", "tokenizer.kind=bytes", "decoder.max_len=300"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_law_holds(variant: str, tmp_path: Path) -> None:
    assert list(failed(check_experiment(build_nano(tmp_path, *VARIANTS[variant])))) == []


def test_a_teacher_that_stands_still_is_named(tmp_path: Path) -> None:
    assert failing(build_nano(tmp_path, *STILL)) == ["the target moves"]


def test_an_embedding_that_reads_padding_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens are taken for real ones, and [PRED] for the last of them."""

    def embed(self: NanoJEPA, batch: QuestionBatch) -> Tensor:
        return self.decoder(batch.ids, torch.ones_like(batch.valid))[:, -1]

    monkeypatch.setattr(NanoJEPA, "embed", embed)
    assert failing(build_nano(tmp_path)) == ["padding changes nothing"]


def test_a_mask_builder_that_returns_all_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        nano_jepa, "question_answer_mask", lambda segments: torch.ones_like(question_answer_mask(segments))
    )
    assert "no leak" in [result.name for result in failed(check_experiment(build_nano(tmp_path)))]


def in_rows_and_alone(method: NanoJEPA, batch: QuestionBatch) -> tuple[Tensor, Tensor]:
    """Targets of the rows of a batch: as `forward` has them, and of the answers encoded by themselves."""
    with evaluating(method):
        alone = [method.encode_answers(row[hidden][None], hidden[hidden][None])
                 for row, hidden in zip(batch.ids, batch.hidden, strict=True)]  # fmt: skip
        return method(batch).latents.target, F.normalize(torch.cat(alone), dim=-1)


def test_an_answer_has_one_latent_whatever_its_question(
    batch: QuestionBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law that catches an answer which reads its question, and positions that do not restart."""
    experiment = build_nano(tmp_path, "target_encoder=self")
    rows, alone = in_rows_and_alone(experiment.method, batch)
    assert torch.allclose(rows, alone, atol=1e-5)
    running = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
    monkeypatch.setattr(
        nano_jepa, "question_answer_positions", lambda segments: running[: len(segments), : segments.shape[1]]
    )
    rows, alone = in_rows_and_alone(experiment.method, batch)
    assert (rows - alone).abs().max() > 1e-3


def test_a_row_is_question_sep_answer_pred(experiment: Experiment, batch: QuestionBatch) -> None:
    tokenizer, pred = experiment.collate.tokenizer, experiment.collate.pred_id
    assert tokenizer.vocab_size == pred + 1
    row = experiment.train_data[int(batch.keys[0])]
    ids = batch.ids[0][batch.valid[0]].tolist()
    assert ids == [*row.question.tolist(), tokenizer.sep_id, *row.answer.tolist(), pred]
    assert batch.ids[0][batch.hidden[0]].tolist() == row.answer.tolist()
    assert (batch.ids.gather(1, batch.pred_at[:, None]) == pred).all()
    assert batch.tokens == int(batch.valid.sum()) == int(experiment.train_data.lengths[batch.keys].sum())
    alone = experiment.embedding.inputs(["How many?", ""])
    assert not alone.hidden.any()
    assert (alone.ids.gather(1, alone.pred_at[:, None]) == pred).all()
    with evaluating(experiment.method):
        assert experiment.method.embed(alone).isfinite().all()


def test_questions_embed_as_their_rows_predict(experiment: Experiment, batch: QuestionBatch) -> None:
    """What users get for a question alone is what training saw beside the answer."""
    rows = [experiment.train_data[int(key)].question for key in batch.keys]
    texts = [experiment.collate.tokenizer.decode(ids) for ids in rows]
    with evaluating(experiment.method):
        expected = experiment.method.predict_from_context(batch)
        assert torch.allclose(experiment.method.embed(experiment.embedding.inputs(texts)), expected, atol=1e-5)


def test_a_grown_tokenizer_has_a_token_that_no_text_writes() -> None:
    texts = ["Tom has 12 beads.", "He buys 120 more."] * 50
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=400, lowercase=False), texts)
    assert tokenizer.decode(tokenizer.encode(["has 120 beads"])[0]) == "has 120 beads"
    grown, number = tokenizer.grown("[PRED]")
    assert (grown.vocab_size, number) == (tokenizer.vocab_size + 1, tokenizer.vocab_size)
    assert grown.grown("[PRED]")[1] == number
    assert number in grown.special_ids
    assert number not in grown.encode(["a [PRED] written in a text"])[0]


def test_long_questions_are_dropped_and_counted(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "qa.jsonl", [(f"what is {n} " * (1 + 40 * (n % 10 == 0)), str(n)) for n in range(50)])
    experiment = build_nano(tmp_path, f"data={source}", "data.eval_fraction=0.3", "decoder.max_len=40")
    kept = len(experiment.train_data) + len(experiment.eval_data)
    assert kept == 45
    assert experiment.notes()["left_out"] == {"longer than 40 tokens": 5}
    assert max(experiment.train_data.lengths) <= 40
    with pytest.raises(UserError, match=r"raise decoder\.max_len"):
        len(TokenizedQuestions(experiment.train_data.load, experiment.collate.tokenizer, 3))


def segments_of(batch: QuestionBatch) -> torch.Tensor:
    """[B, T] the part of each token."""
    return segment_ids(batch.valid, batch.hidden, batch.pred_at)


def next_tokens(segments: torch.Tensor) -> torch.Tensor:
    """segments [B, T] -> [B, T - 1] bool: the next token is in the same block, so that it can be predicted."""
    return (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] < PRED)


def test_token_loss_counts_each_block_by_itself(experiment: Experiment, batch: QuestionBatch) -> None:
    """By hand, row by row; neither the first token of a block nor [PRED] is asked for."""
    method = experiment.method
    logs, count = 0.0, 0
    with evaluating(method):
        states, table = method.read(batch), method.decoder.token.weight
        assert torch.equal(batch.followed[:, :-1], next_tokens(segments_of(batch)))
        for row in range(batch.size):
            sep = int(batch.hidden[row].long().argmax()) - 1
            for first, last in ((0, sep), (sep + 1, int(batch.answer_at[row]))):
                for position in range(first, last):
                    logs += float((table @ states[row, position]).log_softmax(-1)[batch.ids[row, position + 1]])
                    count += 1
        assert float(method(batch).terms["tokens"]) == pytest.approx(-logs / count, rel=1e-5)


def test_log_likelihood_is_the_token_loss_of_questions(experiment: Experiment) -> None:
    one = experiment.embedding.inputs(["Tom has 3 beads. He loses 1 of them. How many beads does he have now?"])
    with evaluating(experiment.method):
        states = experiment.method.read(one)
        assert torch.equal(one.followed[:, :-1], next_tokens(segments_of(one)))
        expected = -experiment.method.token_loss(states, one)
        assert torch.allclose(experiment.method.question_log_likelihood(one), expected[None])


def test_no_gradient_goes_through_the_target(tmp_path: Path) -> None:
    """The prediction's gradient equals that towards a constant: nothing pulls the answer to it."""
    method = build_nano(
        tmp_path, "target_encoder=self", "target_space=raw", "regularizer.name=none", "objective=mse"
    ).method
    batch = next(train_batches(build_nano(tmp_path), 0))
    states = method.read(batch).detach().requires_grad_()  # [B, T, D]
    predicted, answers = (nano_jepa.at(states, at) for at in (batch.pred_at, batch.answer_at))
    method.distance(predicted, method.targets(batch, answers)).backward()
    touched = states.grad.abs().sum(-1) > 0  # [B, T]
    assert touched.sum(1).tolist() == [1] * batch.size
    assert touched.gather(1, batch.pred_at[:, None]).all()


def test_the_teacher_reads_answers_as_the_decoder_does(experiment: Experiment, batch: QuestionBatch) -> None:
    """A fresh copy gives the same target; the answer is taken from the row by its positions, whatever its length."""
    method = experiment.method
    with evaluating(method):
        answers = nano_jepa.at(method.read(batch), batch.answer_at)
        assert torch.allclose(method.targets(batch, answers), method.space(answers), atol=1e-5)
    ids = batch.ids.gather(1, batch.answer_positions)[batch.answer_valid]
    assert torch.equal(ids, batch.ids[batch.hidden])


def test_loss_dropout_is_addressed_and_keeps_its_share(tmp_path: Path) -> None:
    method = build_nano(tmp_path, "loss_dropout=0.3", "weight=2").method
    weights = [method.weight_of(draw) for draw in range(2000)]
    assert set(weights) == {0.0, 2.0}
    assert np.mean(np.array(weights) == 0) == pytest.approx(0.3, abs=0.04)
    assert weights[:50] == [method.weight_of(draw) for draw in range(50)]
    method.eval()
    assert {method.weight_of(draw) for draw in range(50)} == {2.0}


def test_running_space_standardizes_with_kept_statistics() -> None:
    space = RunningSpace(3, "standardized", momentum=0.5)
    rows = torch.randn(4000, 3, generator=generator_for(0, "test")) * torch.tensor([1.0, 5.0, 0.1]) + 7
    first = space(rows)
    assert torch.allclose(first.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(first.std(0), torch.ones(3), atol=1e-3)
    space(rows + 2)
    assert torch.allclose(space.mean, rows.mean(0) + 1, atol=1e-4)
    space.eval()
    before = space.mean.clone()
    assert torch.equal(space(rows[:5]), space(rows)[:5])
    assert torch.equal(space.mean, before)
    assert not space(rows.requires_grad_()).requires_grad
    raw, centered = RunningSpace(3, "raw"), RunningSpace(3, "centered")
    assert torch.equal(raw(rows.detach()), rows.detach())
    assert torch.allclose(centered(rows.detach()), rows.detach() - rows.detach().mean(0), atol=1e-5)


def test_pools_hold_the_right_answer_first_and_prefer_near_ones() -> None:
    pools = draw_pools([2, 0, 9], near=6, total=12, size=5)
    assert pools.shape == (3, 5)
    assert pools[:, 0].tolist() == [2, 0, 9]
    assert all(len(set(pool)) == 5 for pool in pools.tolist())
    assert pools[:, 1:].max() < 6
    wide = draw_pools([1], near=3, total=12, size=None)
    assert sorted(wide[0]) == list(range(12))
    assert set(wide[0, 1:3]) == {0, 2}


def test_nearest_text_by_words() -> None:
    assert nearest_texts(["a red fox", "two blue birds"], ["blue birds sing", "red"]).tolist() == [1, 0]


def test_tasks_ask_every_split_beside_baselines(experiment: Experiment) -> None:
    tasks = experiment.tasks()
    splits = ("test", "templates", "numbers")
    assert [task.name for task in tasks if isinstance(task, Prediction)] == [
        f"synthetic-arithmetic-{split}_question_tokens" for split in splits
    ]
    test = next(task for task in tasks if isinstance(task, Retrieval))
    assert len(set(test.pools[0].tolist())) == test.pools.shape[1] <= 100

    def no_vectors(inputs: object) -> np.ndarray:
        raise AssertionError

    found = {name: score for task in tasks for name, score in evaluate(task, no_vectors, experiment.method).items()}
    tfidf = {name: s for task in tasks for name, s in evaluate(task, no_vectors, None, "tfidf").items()}
    unigram = {name: s for task in tasks for name, s in evaluate(task, no_vectors, None, "unigram").items()}
    measures = ("top1", "mrr", "aligned", "answer_nearest_top1", "question_tokens")
    assert list(found) == [f"synthetic-arithmetic-{split}_{measure}" for split in splits for measure in measures]
    tokens = "synthetic-arithmetic-test_question_tokens"
    vocab = next(train_batches(experiment, 0)).vocab
    assert found[tokens].chance == pytest.approx(-math.log(vocab))
    assert found[tokens].value == pytest.approx(-math.log(vocab), abs=0.5)
    assert -math.log(vocab) < unigram[tokens].value < 0
    assert tfidf.keys() == {name for name in found if not name.endswith("question_tokens")}
    nearest = "synthetic-arithmetic-test_answer_nearest_top1"
    assert found[nearest].chance <= found["synthetic-arithmetic-test_top1"].chance
    assert len(found[nearest].items) == len(tfidf[nearest].items) == 80


def test_predicting_the_answer_itself_answers_all(experiment: Experiment) -> None:
    """An oracle that embeds a question as its answer gets every measure right: candidates and pools are in order."""
    task = experiment.watch()
    with evaluating(experiment.method):
        predicted, candidates = task.vectors(experiment.method)
    assert predicted.shape == (len(task.pools), candidates.shape[1])
    oracle = replace(task, vectors=lambda method: Vectors(candidates[task.pools[:, 0]], candidates))
    scores = evaluate(oracle, lambda texts: np.zeros(0), experiment.method)
    assert scores[f"{task.name}_top1"].value == 1
