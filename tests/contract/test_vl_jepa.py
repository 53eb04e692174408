"""The contract on the image-text recipe: every law holds in every set-up."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from openjepa import api
from openjepa.core.errors import ConfigError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment, Sample
from openjepa.core.locate import built_in_recipes
from openjepa.core.method import Latents, StepOutput
from openjepa.core.pairs import Pairs
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Prediction, Retrieval
from openjepa.data.captions.batches import CaptionCollator, CaptionedBatch
from openjepa.data.captions.dataset import CaptionedImages
from openjepa.data.loading.loader import eval_batches, train_batches
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.data.worlds.scenes import Scenes
from openjepa.evals.features import embed_all
from openjepa.evals.scorecard import Scorecard
from openjepa.evals.suite import evaluate
from openjepa.health.monitor import look
from openjepa.models.target import EMATarget, Frozen
from openjepa.preflight.checks import check_experiment, failed
from openjepa.recipes.vl_jepa import VLJEPA, Config
from openjepa.tasks.caption_retrieval import POOL, CaptionRetrieval, pools_of
from openjepa.training import checkpoint
from tests.tiny import VL, build_vl

VARIANTS = {
    "as shipped": (),
    "no text": ("text=none", "mask.strategy=random", "target.norm=standardize"),
    "shuffled": ("text=shuffled", "mask.strategy=multiblock", "regularizer.name=sigreg"),
    "frozen": ("train_vision=false", "train_text=false"),
    "frozen text": ("train_text=false", "objective=mse"),
    "both directions": ("directions=both", "regularized=mean"),
    "both directions, no copies": ("directions=both", "pairs.target_encoder=self"),
    "both directions, frozen": ("directions=both", "train_vision=false", "train_text=false"),
    "mlp": ("predictor.kind=mlp", "encoder.stem=conv", "objective=smooth_l1"),
}


@pytest.fixture(scope="module", params=VARIANTS)
def experiment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return build_vl(tmp_path_factory.mktemp("assets"), *VARIANTS[request.param])


def rows_of(experiment: Experiment, count: int) -> list[Sample]:
    data: Any = experiment.train_data
    return [Sample(data[i], generator_for(0, "sample", 0, i), i) for i in range(count)]


def test_the_recipe_is_listed() -> None:
    assert "vl_jepa" in built_in_recipes()


def test_every_law_holds(experiment: Experiment) -> None:
    assert list(failed(check_experiment(experiment))) == []


def test_no_row_knows_its_batch(experiment: Experiment) -> None:
    """Neither its neighbours' longer captions nor their larger masks move a prediction."""
    method = experiment.method
    together, alone = (experiment.collate(rows_of(experiment, count)) for count in (12, 2))
    with evaluating(method):
        predicted, few = method.predict_from_context(together), method.predict_from_context(alone)
        assert torch.allclose(predicted[: len(few)], few, atol=1e-5)
        assert torch.allclose(method.embed(together)[:2], method.embed(alone), atol=1e-5)


def test_latents_say_where_they_belong(experiment: Experiment) -> None:
    batch = next(eval_batches(experiment))
    assert isinstance(batch, CaptionedBatch)
    with evaluating(experiment.method):
        _, sample = look(experiment.method, batch)
    assert sample.rows is not None
    assert sample.positions is not None
    assert sample.copied is not None
    assert batch.hidden[sample.rows, sample.positions].all()
    assert batch.hidden.sum() == len(sample.rows) == len(sample.predicted) == len(sample.target)
    assert sample.copied.shape == sample.target.shape
    assert sample.embedding.shape == (batch.size, 32)


def test_predictions_listen_to_the_caption_where_there_is_one(experiment: Experiment) -> None:
    batch = next(train_batches(experiment, 0))
    assert isinstance(batch, CaptionedBatch)
    method = experiment.method
    assert isinstance(method, VLJEPA)
    other = replace(batch, text_ids=batch.text_ids.flip(0), text_valid=batch.text_valid.flip(0))
    silent = replace(batch, text_ids=batch.text_ids[:, :0], text_valid=batch.text_valid[:, :0])
    with evaluating(method):
        first, second, third = (method.predict_from_context(b) for b in (batch, other, silent))
        assert torch.equal(method.embed(batch), method.embed(other))
    assert third.isfinite().all()
    reads = method.reader is not None
    assert torch.equal(first, second) != reads
    assert torch.equal(first, third) != reads


def test_padding_of_captions_changes_nothing(tmp_path: Path) -> None:
    experiment = build_vl(tmp_path)
    batch = next(train_batches(experiment, 0))
    assert isinstance(batch, CaptionedBatch)
    padded = replace(batch, text_ids=torch.where(batch.text_valid, batch.text_ids, 7))
    assert not torch.equal(padded.text_ids, batch.text_ids)
    with evaluating(experiment.method):
        assert torch.equal(*(experiment.method.predict_from_context(b) for b in (batch, padded)))


def test_images_become_one_finite_vector_each(experiment: Experiment) -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (side, 30, 3), dtype=np.uint8) for side in (24, 50, 10)]
    vectors = embed_all(experiment.method, experiment.embedding.inputs, images)
    assert vectors.shape == (3, 32)
    assert np.isfinite(vectors).all()


def test_workers_change_nothing(tmp_path: Path) -> None:
    def facts(workers: int) -> list[tuple]:
        experiment = build_vl(tmp_path, f"train.workers={workers}", "train.steps=6")
        return [(b.keys.tolist(), b.hidden.tolist(), b.text_ids.tolist())
                for b in islice(train_batches(experiment, 2), 3)]  # fmt: skip

    assert facts(0) == facts(2)


def test_frozen_encoders_stay_as_they_are_and_have_no_average(tmp_path: Path) -> None:
    experiment = build_vl(tmp_path, "train_vision=false", "train_text=false")
    method = experiment.method
    assert isinstance(method, VLJEPA)
    assert method.reader is not None
    assert method.teacher is None
    assert isinstance(method.student, Frozen)
    assert isinstance(method.reader.encoder, Frozen)
    assert "no EMA of frozen weights" in experiment.notes()["target"]
    method.train()
    assert not any(module.training for part in (method.student, method.reader.encoder) for module in part.modules())
    batch = next(train_batches(experiment, 0))
    method(batch).loss.backward()
    trained = {name.partition(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert trained == {"reader", "predictor"}
    assert isinstance(build_vl(tmp_path).method.teacher, EMATarget)


def test_a_frozen_run_is_probed_by_what_was_trained(tmp_path: Path) -> None:
    """The predictor moves the embedding, another caption does not; the encoder alone stands beside it."""
    frozen, learns = (build_vl(tmp_path, f"train_vision={learns}", "train_text=false") for learns in ("false", "true"))
    for experiment, moves in ((frozen, True), (learns, False)):
        method = experiment.method
        assert isinstance(method, VLJEPA)
        batch = next(train_batches(experiment, 0))
        assert isinstance(batch, CaptionedBatch)
        images = [np.array(row.sample.image) for row in rows_of(experiment, 15)]
        with evaluating(method):
            before, alone = method.embed(batch), method.student(batch.images).mean(1)
            assert torch.equal(before, alone) != moves
            assert torch.equal(before, method.embed(replace(batch, text_ids=batch.text_ids.flip(0))))
            for parameter in method.predictor.parameters():
                parameter.mul_(0.5)
            assert torch.equal(before, method.embed(batch)) != moves
        assert ("encoder" in experiment.baselines) == moves
        assert ("predictor" in experiment.embedding.note) == moves
        if moves:
            expected = method.student(experiment.embedding.inputs(images).images).mean(1)  # ty: ignore[unresolved-attribute]
            found = torch.from_numpy(experiment.baselines["encoder"](images))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_an_embedding_of_a_frozen_run_reads_the_whole_image(tmp_path: Path) -> None:
    """What is predicted for all patches: from all of them, in one pass, without a caption."""
    experiment = build_vl(tmp_path, "train_vision=false", "train_text=false")
    method, batch = experiment.method, next(train_batches(experiment, 0))
    assert isinstance(method, VLJEPA)
    assert isinstance(batch, CaptionedBatch)
    at = torch.arange(36).expand(batch.size, 36)
    whole = replace(batch, context_at=at, context_valid=at >= 0, hidden_at=at, hidden_valid=at >= 0,
                    text_ids=batch.text_ids[:, :0], text_valid=batch.text_valid[:, :0])  # fmt: skip
    with evaluating(method):
        predicted = method.predict_from_context(whole).view(batch.size, 36, -1)
        torch.testing.assert_close(method.embed(batch), predicted.mean(1))
        one = batch.images.clone()
        one[:, :, -4:, -4:] += 0.5  # any patch moves it: nothing is hidden
        assert (method.embed(replace(batch, images=one)) - method.embed(batch)).abs().amax(1).min() > 1e-6


def test_the_table_says_what_the_probes_read() -> None:
    table = Scorecard({}, "the mean of something").table()
    assert "probes read the mean of something" in str(table.caption)
    assert "probes read" not in str(Scorecard({}).table().caption)


# --- frozen encoders of transformers, and what is kept of them


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that name a tiny ViT and a tiny BERT with its tokenizer, both in folders."""
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("pretrained")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    ViTModel(ViTConfig(**sizes, image_size=24, patch_size=4)).save_pretrained(folder / "vit")
    BertModel(BertConfig(**sizes, vocab_size=300, max_position_embeddings=24)).save_pretrained(folder / "bert")
    captions = Scenes("train", 120)
    tokenizer = train_tokenizer(
        TokenizerConfig(vocab_size=300), (text for i in range(100) for text in captions.captions(i))
    )
    tokenizer.save(folder / "bert" / "tokenizer.json")
    names = ("encoder.name=vit", "text_encoder.name=bert")
    return tuple(name.replace("=", f"={folder}/") for name in names)


def test_named_encoders_are_frozen_and_keep_the_laws(pretrained: tuple[str, ...], tmp_path: Path) -> None:
    for more in (
        (),
        ("mask.strategy=random", "text=shuffled"),
        ("train_vision=true", "train_text=true"),
    ):
        experiment = build_vl(tmp_path, *pretrained, *more)
        assert list(failed(check_experiment(experiment))) == []
        method = experiment.method
        assert isinstance(method, VLJEPA)
        assert (method.teacher is None) == ("train_vision=true" not in more)


@pytest.mark.parametrize("text", ["caption", "shuffled"])
def test_what_is_kept_is_what_the_encoders_say(text: str, pretrained: tuple[str, ...], tmp_path: Path) -> None:
    live, kept = (build_vl(tmp_path, *pretrained, f"text={text}", f"cache={cache}") for cache in (False, True))
    kept.method.load_state_dict(live.method.state_dict())
    for first, second in islice(zip(train_batches(live, 0), train_batches(kept, 0), strict=True), 3):
        assert isinstance(first, CaptionedBatch)
        assert isinstance(second, CaptionedBatch)
        assert first.latents is first.words is None
        assert second.latents is not None
        assert second.words is not None
        assert second.latents.shape == (15, 36, 16)
        assert torch.equal(first.text_ids, second.text_ids)
        with evaluating(live.method):
            one, other = live.method(first), kept.method(second)
        assert torch.allclose(one.latents.target, other.latents.target, atol=5e-3)
        assert torch.allclose(one.latents.predicted, other.latents.predicted, atol=5e-3)
        assert one.loss == pytest.approx(float(other.loss), abs=2e-3)


# --- does the caption help?


def asked(experiment: Experiment, method: Any = None) -> dict[str, float]:
    task, method = experiment.tasks()[0], method or experiment.method
    assert isinstance(task, Prediction)
    with evaluating(method):
        return {name: float(answers.items.mean()) for name, answers in task.ask(method).items()}


def test_without_text_there_is_no_gap(tmp_path: Path) -> None:
    found = asked(build_vl(tmp_path, "text=none"))
    assert set(found) == {f"captions_{name}" for name in ("skill_right", "skill_shuffled", "skill_none", "gap")}
    assert found["captions_gap"] == 0
    assert found["captions_skill_right"] == found["captions_skill_shuffled"] == found["captions_skill_none"]


def test_skill_with_a_wrong_caption_or_none_is_a_control(tmp_path: Path) -> None:
    experiment = build_vl(tmp_path)
    task = experiment.tasks()[0]
    assert isinstance(task, Prediction)
    with evaluating(experiment.method):
        found = task.ask(experiment.method)
    controls = {name for name, answers in found.items() if answers.control}
    assert controls == {"captions_skill_shuffled", "captions_skill_none"}


class Listener(torch.nn.Module):
    """Predicts the target where the caption is one of the image's own, half of it where it is not, else nothing."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.experiment, self.idle = experiment, torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: CaptionedBatch) -> StepOutput:
        data, collate = self.experiment.eval_data, self.experiment.collate
        assert isinstance(data, CaptionedImages)
        assert isinstance(collate, CaptionCollator)
        target = torch.eye(len(data))[batch.keys]  # [B, N]
        shares = []
        for key, ids, valid in zip(batch.keys.tolist(), batch.text_ids, batch.text_valid, strict=True):
            own = [one.tolist() for one in collate.encode(data.captions_of(key))]
            shares.append(1.0 if ids[valid].tolist() in own else 0.5 if valid.any() else 0.0)
        predicted = torch.tensor(shares)[:, None] * target
        rows = batch.hidden_valid.nonzero()[:, 0]  # [M]
        return StepOutput({"prediction": self.idle.sum()}, Latents(predicted[rows], target[rows]))


def test_the_gap_is_what_right_captions_are_worth(tmp_path: Path) -> None:
    experiment = build_vl(tmp_path, "mask.strategy=random")  # as many hidden patches in each image
    found = asked(experiment, Listener(experiment))
    constant = 1 - 1 / len(experiment.eval_data)  # error of the mean of N unit vectors
    assert found["captions_skill_right"] == pytest.approx(1)
    assert found["captions_skill_shuffled"] == pytest.approx(1 - 0.25 / constant)
    assert found["captions_skill_none"] == pytest.approx(1 - 1 / constant)
    assert found["captions_gap"] == pytest.approx(0.25 / constant)


# --- images and captions from each other


def test_without_text_nothing_can_be_predicted_both_ways(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="text=caption"):
        build_vl(tmp_path, "directions=both", "text=none")


def test_pools_are_asked_from_the_view_of_every_member() -> None:
    pools = pools_of(250)
    assert pools.shape == (200, POOL)  # the last 50 fill no pool
    assert np.array_equal(pools[:, 0], np.arange(200))
    assert all(set(pool) == set(range(0, 100) if i < 100 else range(100, 200)) for i, pool in enumerate(pools))
    assert np.array_equal(pools_of(3), [[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    assert pools_of(0).shape == (0, 0)


@pytest.mark.slow
def test_images_and_captions_find_each_other_by_what_the_method_predicts(tmp_path: Path) -> None:
    """Latents that name their image find it; with the image's side mixed up, none does."""
    experiment = build_vl(tmp_path, "directions=both")
    data, collate = experiment.eval_data, experiment.collate
    assert isinstance(data, CaptionedImages)
    assert isinstance(collate, CaptionCollator)

    def named(method: Any, batch: CaptionedBatch) -> Pairs:
        at = torch.eye(len(data))[batch.keys]
        learners = torch.zeros_like(at)  # which are not asked
        return Pairs(learners, learners, at, at.roll(1, 1), image_target=at, text_target=at)

    with torch.no_grad():
        tasks = CaptionRetrieval(data, collate, named).tasks()
        found = {task.name: evaluate(task, lambda inputs: inputs, experiment.method) for task in tasks}
    assert found["text_to_image"]["text_to_image_top1"].value == 1
    assert found["image_to_text"]["image_to_text_top1"].value == 0
    asked = [task.name for task in experiment.tasks() if isinstance(task, Retrieval)]
    assert asked == ["image_to_text", "text_to_image"]
    assert not any(isinstance(task, Retrieval) for task in build_vl(tmp_path).tasks())


def test_pairs_read_the_top_layer_whatever_is_predicted(tmp_path: Path) -> None:
    """The projection of the targets follows one that is learned on the student's top layer."""
    for settings in (("target.skip_top=1",), ("target.layers=2",)):
        experiment = build_vl(tmp_path / settings[0], "directions=both", "encoder.depth=2", *settings)
        plain = build_vl(tmp_path / f"plain {settings[0]}", "directions=both", "encoder.depth=2")
        plain.method.load_state_dict(experiment.method.state_dict())
        batch = next(train_batches(experiment, 0))
        with torch.no_grad():
            found, expected = (one.method.eval().pairs(batch) for one in (experiment, plain))
        torch.testing.assert_close(found.image_target, expected.image_target)


@pytest.mark.parametrize("text_learns", [True, False])
def test_targets_of_both_directions_come_from_slow_copies(text_learns: bool, tmp_path: Path) -> None:
    """After a step only the copies' old weights still give the targets that were there before; no gradient in them."""
    experiment = build_vl(tmp_path, "directions=both", f"train_text={str(text_learns).lower()}", "momentum.start=1")
    method, batch = experiment.method, next(train_batches(experiment, 0))
    assert isinstance(method, VLJEPA)
    assert isinstance(batch, CaptionedBatch)
    assert method.cross_modal is not None
    assert method.reader is not None
    assert (method.cross_modal.target_text_encoder is not None) == text_learns
    assert isinstance(method.cross_modal.target_projections, EMATarget)
    method.train()
    before = method.pairs(batch)
    torch.testing.assert_close(before.image, before.image_target, atol=1e-5, rtol=1e-4)  # a fresh copy is the original
    torch.testing.assert_close(before.text, before.text_target, atol=1e-5, rtol=1e-4)
    assert before.image.requires_grad
    assert before.text.requires_grad
    assert not before.image_target.requires_grad
    assert not before.text_target.requires_grad
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:  # not the copies'
                parameter.add_(0.1 * torch.randn_like(parameter))
    method.after_step(Progress(0, 100))
    after = method.pairs(batch)
    assert not torch.allclose(before.text, after.text)
    assert torch.equal(before.image_target, after.image_target)
    assert torch.equal(before.text_target, after.text_target)


def test_copies_of_both_directions_follow_their_originals(tmp_path: Path) -> None:
    experiment = build_vl(tmp_path, "directions=both", "momentum.start=0", "momentum.final=0")
    method, batch = experiment.method, next(train_batches(experiment, 0))
    assert isinstance(method, VLJEPA)
    assert isinstance(batch, CaptionedBatch)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    method.after_step(Progress(0, 100))
    with evaluating(method):
        pairs = method.pairs(batch)
        torch.testing.assert_close(pairs.image, pairs.image_target, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(pairs.text, pairs.text_target, atol=1e-5, rtol=1e-4)


def test_sides_that_are_their_own_targets_learn_from_both_distances(tmp_path: Path) -> None:
    experiment = build_vl(tmp_path, "directions=both", "pairs.target_encoder=self")
    method, batch = experiment.method, next(train_batches(experiment, 0))
    assert isinstance(method, VLJEPA)
    assert isinstance(batch, CaptionedBatch)
    assert method.cross_modal is not None
    assert method.cross_modal.target_text_encoder is method.cross_modal.target_projections is None
    pairs = method.pairs(batch)
    assert pairs.image_target is pairs.image
    assert pairs.text_target is pairs.text
    assert experiment.notes()["text_target"].startswith("the text encoder itself")


def test_momentum_is_in_use_wherever_something_is_averaged() -> None:
    def idle(*settings: str) -> bool:
        return "momentum" in Config.load(overrides=settings).unused()

    assert idle("train_vision=false")
    assert not idle()
    assert not idle("train_vision=false", "directions=both")
    assert idle("train_vision=false", "directions=both", "pairs.target_encoder=self")


def test_a_text_encoder_that_is_never_a_target_has_no_copy(tmp_path: Path) -> None:
    experiment = build_vl(tmp_path)
    assert isinstance(experiment.method, VLJEPA)
    assert experiment.method.cross_modal is None
    assert experiment.notes()["text_target"].startswith("none")
    assert build_vl(tmp_path, "directions=both").notes()["text_target"] == "EMA of the text encoder"
    assert "text_target" not in build_vl(tmp_path, "train_text=false").notes()


# --- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    settings = (*VL, "train.steps=6", "train.checkpoint_every=3", "train.accumulate=2", "train.health_every=3")
    return api.train("vl_jepa", out=tmp_path_factory.mktemp("runs") / "run", overrides=settings, progress=False)


@pytest.mark.slow
def test_a_run_is_trained_judged_and_used(run: api.Run) -> None:
    data: Any = run.experiment.eval_data
    images = [np.array(row.image) for row in (data[i] for i in range(4))]
    assert run.encode(images).shape == (4, 32)
    assert run.summary()["notes"]["data"]["images"] == 120
    assert set(run.peak_memory()) == {"training"}
    captions, factor, *_ = run.tasks()
    small = replace(factor, train=factor.train[:60], train_labels=factor.train_labels[:60],
                    test=factor.test[:30], test_labels=factor.test_labels[:30])  # fmt: skip
    scorecard = run.evaluate([captions, small]).to_json()
    assert {"run", "init", "random", "pixels", "chance"} <= set(scorecard["shape_knn"])
    assert {"run", "init", "random", "chance"} <= set(scorecard["captions_gap"])
    peaks = run.summary()["peak_memory_gb"]
    assert set(peaks) == {"training", "evaluation"}
    assert all(0.05 < gb < 64 for gb in peaks.values())


@pytest.mark.slow
def test_a_run_draws_its_figures(run: api.Run) -> None:
    assert run.draw() == [run.folder.evals / "captions.png"]
    assert (run.folder.evals / "captions.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_probe_reads_the_trained_weights(run: api.Run) -> None:
    """Loaded weights are those of the checkpoint, and embed otherwise than the initialisation."""
    data: Any = run.experiment.eval_data
    images = [np.array(data[i].image) for i in range(4)]
    saved = load_file(checkpoint.newest(run.folder.checkpoints) / checkpoint.WEIGHTS)
    loaded, fresh = run.experiment.method.state_dict(), run.fresh().method.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in saved.items())
    assert not torch.equal(loaded["student.stem.weight"], fresh["student.stem.weight"])
    start = embed_all(run.fresh().method, run.experiment.embedding.inputs, images)
    assert not np.allclose(run.encode(images), start, atol=1e-4)


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_was_not_stopped(run: api.Run, tmp_path: Path) -> None:
    again = tmp_path / "copy"
    shutil.copytree(run.path, again)
    *_, last = checkpoint.finished(again / "checkpoints")
    shutil.rmtree(last)
    api.train("", out=again, resume=True, progress=False)
    mine, theirs = (
        load_file(checkpoint.newest(path / "checkpoints") / checkpoint.WEIGHTS) for path in (again, run.path)
    )
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
