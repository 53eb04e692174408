"""Prediction of frozen sentence vectors: means by distance, vectors that depend on nothing else, and what follows."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import openjepa
from openjepa.cli import main
from openjepa.core.compute import ON_CPU
from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.data.loading.loader import train_batches
from openjepa.data.text.masked import MaskedText
from openjepa.data.text.masked_sentences import MaskedSentencesCollator
from openjepa.data.text.rows import SentenceRows
from openjepa.data.text.sentences import SentencesConfig
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.evals import next_sentence
from openjepa.evals.features import embedder_of
from openjepa.evals.next_sentence import next_sentences
from openjepa.masking.sentences import SentenceMasker
from openjepa.models.neighbour_mean import NeighbourMean, distance_weights
from openjepa.models.sentence_head import embedded
from openjepa.models.sentence_latents import SentenceLatents
from openjepa.training import checkpoint
from openjepa.training.stages import freeze_all_but_predictor
from tests.tiny import TINY, build_recipe
from tests.unit.test_sentence_tasks import Words

TEXTS = [f"The cat number {n} slept. It was late on day {n}. Nobody saw the owl {n}." for n in range(40)]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return build_recipe("concept_jepa", tmp_path_factory.mktemp("assets"), "sentences.passages=3")


@pytest.fixture(scope="module")
def batch(experiment: Experiment) -> MaskedText:
    return next(train_batches(experiment, 0))


def latents_of(method: Any, batch: MaskedText) -> Tensor:
    return method.latents(batch.ids, batch.segment, batch.keys)


def test_a_mean_by_distance_is_the_formula_and_ignores_padding() -> None:
    torch.manual_seed(0)
    context, places = torch.randn(2, 5, 8), torch.tensor([[0, 1, 3, 4, 9], [0, 2, 3, 7, 8]])
    valid = torch.tensor([[True] * 5, [True, True, True, False, False]])
    asked = torch.tensor([[2, 6], [1, 5]])
    found = distance_weights(places, valid, asked, 2.0)
    raw = torch.exp(-(asked[:, :, None] - places[:, None]).abs() / 2.0) * valid[:, None]
    torch.testing.assert_close(found, raw / raw.sum(-1, keepdim=True))
    every = distance_weights(places, valid, asked, math.inf)
    torch.testing.assert_close(every[1, 0], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0]))
    mean = NeighbourMean((2.0, math.inf))
    torch.testing.assert_close(mean(context, places, valid, asked), 0.5 * (found + every) @ context)
    other = torch.where(valid[..., None], context, 100.0)
    torch.testing.assert_close(mean(other, places, valid, asked), mean(context, places, valid, asked))


def test_a_sentence_has_the_vector_of_that_text_alone(experiment: Experiment, batch: MaskedText) -> None:
    method: Any = experiment.method.eval()
    found = latents_of(method, batch)
    prefix = method.latents.prefix
    for number in range(0, len(found), 7):
        tokens = batch.ids[batch.segment == number]
        is_first = number == 0 or batch.row[number] != batch.row[number - 1]
        alone = tokens if is_first else torch.cat([prefix, tokens])
        expected = embedded(method.student, alone[None], torch.ones(1, len(alone), dtype=torch.bool))[0]
        torch.testing.assert_close(found[number], expected * math.sqrt(len(expected)) / expected.norm())
    torch.testing.assert_close(found.square().mean(1), torch.ones(len(found)))


def test_vectors_are_computed_once_and_do_not_depend_on_the_batch(experiment: Experiment, batch: MaskedText) -> None:
    method: Any = experiment.method.eval()
    calls: list[int] = []

    class Counted(torch.nn.Module):
        dim = method.student.dim

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, ids: Tensor, valid: Tensor) -> Tensor:
            calls.append(len(ids))
            return method.student(ids, valid)

    prefix = method.latents.prefix.numpy()
    kept, forgotten = SentenceLatents(Counted(), prefix, 10_000), SentenceLatents(Counted(), prefix, 0)
    inputs = batch.ids, batch.segment, batch.keys
    first = kept(*inputs)
    once = len(calls)
    assert torch.equal(kept(*inputs), first)
    assert len(calls) == once
    assert torch.equal(forgotten(*inputs), first)
    assert torch.equal(forgotten(*inputs), first)
    assert len(calls) == 3 * once
    rows = batch.keys == batch.keys[0]  # the first document without the others
    alone = forgotten(batch.ids[rows], batch.segment[rows], batch.keys[rows])
    assert torch.equal(alone, first[: len(alone)])


def test_training_begins_at_the_mean_and_moves_the_predictor_alone(experiment: Experiment, batch: MaskedText) -> None:
    method: Any = experiment.method
    visible, hidden = batch.visible_by_document, batch.hidden_by_document
    with torch.no_grad():
        mean = method.predictor.mean(
            latents_of(method, batch)[visible.number],
            batch.position[visible.number],
            visible.valid,
            batch.position[hidden.number],
        )
        method.predictor.scale.zero_()
        torch.testing.assert_close(method.predict_from_context(batch), mean[hidden.valid])
        method.predictor.scale.fill_(0.1)
        assert not torch.equal(method.predict_from_context(batch), mean[hidden.valid])
    method.train()
    assert not method.student.training
    method(batch).loss.backward()
    assert all(parameter.grad is None for parameter in method.student.parameters())
    assert all(parameter.grad is not None for name, parameter in method.named_parameters() if "student" not in name)
    method.zero_grad()


def words(answer: Any) -> Any:
    """What `next_sentences` needs of an experiment: latents are means of random vectors of words."""
    tokenizer = train_tokenizer(TokenizerConfig(kind="bytes"), ())
    rows = SentenceRows(tokenizer, SentencesConfig(passages=2), max_len=256)
    collate = MaskedSentencesCollator(rows, SentenceMasker())
    return SimpleNamespace(collate=collate, method=Words(answer), compute=ON_CPU)


def test_what_is_expected_comes_first() -> None:
    def expects_the_last_visible(method: Words, batch: MaskedText) -> Tensor:
        """The sentence before the hidden one, which is the last."""
        assert batch.hidden_segments.tolist() == [len(batch.row) - 1]
        return method.all_targets(batch)[[-2]]

    found = next_sentences(words(expects_the_last_visible), "stub", f"{TEXTS[3]} Nobody saw the owl 7.", TEXTS, 4)
    assert found.sentences[0] == "Nobody saw the owl 7."
    assert found.cosines[0] == pytest.approx(1)
    assert list(found.cosines) == sorted(found.cosines, reverse=True)
    assert len(found.sentences) == 4
    assert found.candidates == 120
    assert found.random_pairs < found.cosines[3]
    many = " ".join(f"Sentence {n} of a long text." for n in range(60)) + " Nobody saw the owl 9."
    assert next_sentences(words(expects_the_last_visible), "stub", many, TEXTS, 1).sentences == (
        "Nobody saw the owl 9.",
    )


def test_what_cannot_be_ranked_is_refused() -> None:
    stub = words(lambda method, batch: method.all_targets(batch)[[-1]])
    with pytest.raises(UserError, match="the text is empty"):
        next_sentences(stub, "stub", "  ", TEXTS, 3)
    with pytest.raises(UserError, match="the corpus has 2 sentences"):
        next_sentences(stub, "stub", "A text.", ["One here. Two here."], 3)
    other = SimpleNamespace(collate=None, method=None, compute=ON_CPU)
    with pytest.raises(UserError, match=r"next needs a run that predicts sentences.*of t_jepa"):
        next_sentences(other, "t_jepa", "A text.", TEXTS, 3)  # ty: ignore[invalid-argument-type]


def test_documents_of_one_sentence_are_passed_over_wherever_they_stand() -> None:
    stub = words(lambda method, batch: method.all_targets(batch)[[-1]])
    alone = [f"A single sentence {n}." for n in range(2 * next_sentence.AT_ONCE)]
    assert next_sentences(stub, "stub", "A text.", [*alone, *TEXTS], 1).candidates == 120


def test_targets_that_are_standardised_have_the_moments_of_the_whole_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many documents are read at once changes no cosine."""
    experiment = build_recipe("lang_jepa", tmp_path, "target.norm=standardize")
    found = []
    for at_once in (2, 40):
        monkeypatch.setattr(next_sentence, "AT_ONCE", at_once)
        found.append(next_sentences(experiment, "lang_jepa", "The cat slept. It was late.", TEXTS, 5))
    assert found[0].sentences == found[1].sentences
    np.testing.assert_allclose(found[0].cosines, found[1].cosines, atol=1e-4)


def test_alone_the_predictor_still_learns_all_that_predicts(tmp_path: Path) -> None:
    method = build_recipe("concept_jepa", tmp_path).method
    freeze_all_but_predictor(method)
    learned = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert learned == {name for name, _ in method.named_parameters() if not name.startswith("student.")}


def test_the_preset_and_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*TINY, "steps=2", "train.health_every=2", "train.checkpoint_every=2"]
    run = openjepa.train(
        "lang_jepa", preset="concepts", data=TEXTS, overrides=overrides, out=tmp_path / "run", progress=False
    )
    assert run.recipe == "concept_jepa"
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in [TEXTS[0]] * 500 + TEXTS))  # read to its end
    command = ["next", str(run.path), "The cat slept. It was late.", "--corpus", str(corpus), "--top", "2"]
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["sentences"]), found["candidates"]) == (2, 120)
    assert set(found["sentences"]) <= {sentence for text in TEXTS for sentence in sentences(text)}
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert f"of 120 sentences; two random ones have a cosine of {found['random_pairs']:.2f}" in shown
    one = run.encode(TEXTS[0])
    start = embedder_of(run.fresh())([TEXTS[0]])[0]
    np.testing.assert_allclose(one, start, atol=1e-5)  # the encoder is as it was


def sentences(text: str) -> list[str]:
    return [part if part.endswith(".") else f"{part}." for part in text.split(". ")]


def test_a_run_that_is_resumed_is_the_run_that_was_not(tmp_path: Path) -> None:
    """Its vectors are computed anew, with other documents around them than the first time."""
    few = (
        "train.steps=8",
        "train.checkpoint_every=4",
        "train.health_every=8",
        "train.batch_size=6",
        "predictor.depth=2",
    )
    run = openjepa.train("concept_jepa", data=TEXTS, overrides=[*TINY, *few], out=tmp_path / "run", progress=False)
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    shutil.rmtree(checkpoint.newest(copy / "checkpoints"))  # of the last step; the one before is of step 4
    openjepa.train("", out=copy, resume=True, progress=False)
    mine, theirs = (load_file(checkpoint.newest(at / "checkpoints") / checkpoint.WEIGHTS) for at in (copy, run.path))
    assert checkpoint.newest_step(copy / "checkpoints") == 8
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
