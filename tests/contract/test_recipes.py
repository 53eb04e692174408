"""The contract on real recipes: every law holds in every set-up, each planted defect fails its law, rows stay apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment, Sample
from openjepa.core.seeding import generator_for
from openjepa.data.loading.loader import eval_batches, train_batches
from openjepa.health.monitor import look
from openjepa.preflight.checks import check_experiment, failed
from openjepa.recipes import lang_jepa
from openjepa.recipes.lang_jepa import LangJEPA
from tests.planted import STILL, asks_for_one_position, failing, shows_the_hidden
from tests.tiny import build_recipe, build_tiny

LANG_VARIANTS = {
    "lang_jepa: as shipped": (),
    "lang_jepa: the original": (
        "teacher_reads=document",
        "regularizer.name=none",
        "invariance=0",
        "predictor.kind=mlp",
        "target.norm=none",
        "encoder.max_len=64",
    ),
    "lang_jepa: block": (
        "mask.strategy=block",
        "regularizer.name=sigreg",
        "target.norm=layer_norm",
        "contrast.weight=0.1",
    ),
    "lang_jepa: next": ("mask.strategy=next", "mask.ratio=0.2", "objective=cosine"),
}
VARIANTS = {
    "as shipped": (),
    "the original": (
        "mask.how=mask",
        "predictor.kind=mlp",
        "teacher_reads=text",
        "regularizer.name=none",
        "invariance=0",
    ),
    "hybrid": ("mask.how=mask", "teacher_reads=text", "regularizer.name=sigreg", "mlm_weight=0.1", "invariance=0"),
    "spans": ("predict=spans", "predictor.kind=mlp", "regularizer.weight=0", "mlm_weight=0.1"),
    "whole text": ("predict=spans", "teacher_reads=text", "regularizer.name=sigreg"),
    "bytes": (
        "tokenizer.kind=bytes",
        "mask.how=mask",
        "predict=spans",
        "target.norm=standardize",
        "encoder.max_len=64",
    ),
}


@pytest.fixture(scope="module", params=[*VARIANTS, *LANG_VARIANTS])
def experiment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    assets = tmp_path_factory.mktemp("assets")
    if request.param in LANG_VARIANTS:
        return build_tiny(assets, *LANG_VARIANTS[request.param], recipe=lang_jepa)
    return build_tiny(assets, *VARIANTS[request.param])


def test_every_law_holds(experiment: Experiment) -> None:
    assert list(failed(check_experiment(experiment))) == []


TOLD_BY_NUMBER = ("lang_jepa", "i_jepa", "vl_jepa")  # predictors that are told which hidden part they are asked for


@pytest.mark.parametrize(
    ("recipe", "settings", "change", "law"),
    [
        *((recipe, (), shows_the_hidden, "no leak") for recipe in ("t_jepa", *TOLD_BY_NUMBER)),
        *((recipe, (), asks_for_one_position, "positions matter") for recipe in TOLD_BY_NUMBER),
        *((recipe, STILL, lambda batch: batch, "the target moves") for recipe in ("t_jepa", *TOLD_BY_NUMBER)),
    ],
)
def test_a_planted_defect_fails_its_law_alone(
    recipe: str, settings: tuple[str, ...], change: Callable, law: str, tmp_path: Path
) -> None:
    assert failing(build_recipe(recipe, tmp_path, *settings), change) == [law]


def test_no_row_knows_its_batch(experiment: Experiment) -> None:
    """Longer neighbours pad a row's text, its context and its hidden positions: its vectors stay what they were."""
    rows = [Sample(experiment.train_data[i], generator_for(0, "sample", 0, i), i) for i in range(12)]
    rows.sort(key=lambda row: len(row.sample.ids))

    def fresh(chosen: list[Sample]) -> list[Sample]:
        return [Sample(row.sample, generator_for(0, "sample", 0, row.index), row.index) for row in chosen]

    method = experiment.method
    together, alone = experiment.collate(fresh(rows)), experiment.collate(fresh(rows[:3]))
    with evaluating(method):
        predicted, few = method.predict_from_context(together), method.predict_from_context(alone)
        assert torch.allclose(predicted[: len(few)], few, atol=1e-5)
        assert torch.allclose(method.embed(together)[:3], method.embed(alone), atol=1e-5)
        if experiment.method.config.target.norm != "standardize":
            targets = method(together).latents.target, method(alone).latents.target
            assert torch.allclose(targets[0][: len(few)], targets[1], atol=1e-4)


def test_latents_say_where_they_belong(experiment: Experiment) -> None:
    batch = next(eval_batches(experiment))
    with evaluating(experiment.method):
        _, sample = look(experiment.method, batch)
    count = len(sample.predicted)
    assert sample.rows is not None
    assert sample.positions is not None
    assert sample.copied is not None
    assert sample.teacher is not None
    assert len(sample.target) == len(sample.rows) == len(sample.positions) == len(sample.copied) == count
    if isinstance(experiment.method, LangJEPA):  # a position is a sentence's number in its document
        assert torch.equal(sample.rows, batch.row[batch.hidden_segments])
        assert torch.equal(sample.positions, batch.position[batch.hidden_segments])
    else:
        assert batch.hidden[sample.rows, sample.positions].all()
    assert torch.equal(sample.rows, sample.rows.sort().values)
    assert len(sample.embedding) == len(sample.teacher) == batch.size


def test_user_texts_become_one_finite_vector_each(experiment: Experiment) -> None:
    batch = experiment.embedding.inputs(["a short text", "", "a much longer text " * 40, "ünïcode 🙂"])
    with evaluating(experiment.method):
        assert experiment.method.embed(batch).isfinite().all()
        assert experiment.method.embed(batch).shape == (4, 32)


def test_workers_change_nothing(tmp_path: Path) -> None:
    def facts(workers: int) -> list[tuple]:
        experiment = build_tiny(tmp_path, f"train.workers={workers}", "train.batch_tokens=2000", "train.steps=8")
        return [(b.draw, b.keys.tolist(), b.ids.tolist(), b.hidden.tolist())
                for b in islice(train_batches(experiment, 2), 5)]  # fmt: skip

    assert facts(0) == facts(2)


def test_the_same_seed_builds_the_same_method(tmp_path: Path) -> None:
    first, second = (build_tiny(tmp_path / name).method.state_dict() for name in "ab")
    other = build_tiny(tmp_path / "c", "train.seed=1").method.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["student.token.weight"], other["student.token.weight"])


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_pretrained_encoder_keeps_the_laws(kind: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = {token: i for i, token in enumerate([*specials, ".", *letters, *(f"##{c}" for c in letters)])}
    backend = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(specials)
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    folder = tmp_path / kind
    sizes = {
        "bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
        "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    }[kind]
    model = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=60, max_position_embeddings=40, **sizes))
    model.save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    experiment = build_tiny(tmp_path / "assets", f"encoder.name={folder}", "mask.how=drop", "data.documents=60")
    assert list(failed(check_experiment(experiment))) == []
    batch = next(train_batches(experiment, 0))
    assert not batch.hidden[:, 0].any()  # [CLS]
    assert json.loads((tmp_path / "assets" / "encoder" / "config.json").read_text())["model_type"] == kind
