"""LLM-JEPA on decoders of transformers: small random ones, saved to a folder and opened like a user's. No network."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from openjepa import api
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Experiment
from openjepa.data.loading.loader import train_batches
from openjepa.data.questions.batches import QuestionBatch
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.data.worlds.arithmetic import Arithmetic
from openjepa.export.twins import stock_model
from openjepa.models.lora import LoraConfig
from openjepa.models.pretrained_decoder import PretrainedDecoder
from openjepa.preflight.checks import check_experiment, failed
from openjepa.recipes import nano_jepa
from openjepa.recipes.nano_jepa import NanoJEPA
from openjepa.training import checkpoint
from tests.tiny import NANO, build_tiny, without

VOCAB = 400
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCAB,
         "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip
SPECS: dict[str, dict[str, Any]] = {
    "gpt2": {**SHAPE, "n_positions": 128},
    "llama": {**SHAPE, "max_position_embeddings": 128, "intermediate_size": 32, "num_key_value_heads": 2},
    "gemma2": {**SHAPE, "max_position_embeddings": 128, "intermediate_size": 32, "num_key_value_heads": 2,
               "head_dim": 8, "final_logit_softcapping": 0.5, "sliding_window": 100},
}  # fmt: skip
KINDS = pytest.mark.parametrize("kind", SPECS)
# the preset, but for its data and its sizes
SMALL = (*without(NANO, "decoder.", "tokenizer."), "tokenizer.kind=null", "decoder.max_len=96", "weight=0.5",
         "token_loss=answer", "target_encoder=self", "target_space=raw", "regularizer.name=none")  # fmt: skip


def save_model(folder: Path, kind: str, **sizes: Any) -> None:
    """A random model with a vocabulary, as a user may have it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {kind: tmp_path_factory.mktemp(kind) for kind in SPECS}
    problems = [Arithmetic("train", 200)[n] for n in range(200)]
    texts = [text for problem in problems for text in (problem.question, problem.answer)]
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=VOCAB), texts)
    for kind, folder in made.items():
        save_model(folder, kind, **SPECS[kind])
        tokenizer.save(folder / "tokenizer.json")
    return made


def settings(folder: Path, *overrides: str) -> list[str]:
    return [*SMALL, f"decoder.name={folder}", *overrides]


def build(assets: Path, folder: Path, *overrides: str) -> Experiment:
    return build_tiny(assets, recipe=nano_jepa, settings=settings(folder, *overrides))


@pytest.fixture(scope="module")
def experiment(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return build(tmp_path_factory.mktemp("assets"), folders["gpt2"])


@pytest.fixture(scope="module")
def batch(experiment: Experiment) -> QuestionBatch:
    return next(train_batches(experiment, 0))


def of_transformers(folder: Path, batch: QuestionBatch, asked: Tensor) -> float:
    """The library's own loss of causal language modelling, over the tokens `asked` for."""
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    labels = batch.ids.masked_fill(~asked, -100)
    with torch.no_grad():
        return float(reference(input_ids=batch.ids, attention_mask=batch.valid.long(), labels=labels).loss)


@KINDS
def test_without_the_prediction_it_is_the_librarys_own_loss(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    for token_loss in ("row", "answer"):
        made = build(tmp_path, folders[kind], "weight=0", f"token_loss={token_loss}")
        batch = next(train_batches(made, 0))
        is_pred = torch.arange(batch.ids.shape[1]) == batch.pred_at[:, None]
        asked = batch.hidden if token_loss == "answer" else batch.valid & ~is_pred
        with evaluating(made.method):
            loss = float(made.method(batch).loss)
        assert loss == pytest.approx(of_transformers(tmp_path / "decoder", batch, asked), rel=1e-5)


@KINDS
def test_every_law_holds(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    assert list(failed(check_experiment(build(tmp_path, folders[kind])))) == []


def latents(method: NanoJEPA, batch: QuestionBatch) -> tuple[Tensor, Tensor]:
    """Prediction and answer's latent of each row, each [B, D]."""
    with evaluating(method):
        states = method.read(batch)
        rows = torch.arange(batch.size)
        return states[rows, batch.pred_at], states[rows, batch.answer_at]


@KINDS
def test_neither_view_sees_the_other(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Other tokens of one view leave the latent of the other as it is, bit for bit; alone it is the same."""
    made = build(tmp_path, folders[kind])
    batch = next(train_batches(made, 0))
    predicted, answers = latents(made.method, batch)
    other = (batch.ids + 7) % VOCAB
    with_other_answers = latents(made.method, replace(batch, ids=torch.where(batch.hidden, other, batch.ids)))
    assert torch.equal(with_other_answers[0], predicted)
    assert (with_other_answers[1] - answers).abs().max() > 1e-3
    is_question = batch.valid & ~batch.hidden & (torch.arange(batch.ids.shape[1]) < batch.pred_at[:, None])
    with_other_questions = latents(made.method, replace(batch, ids=torch.where(is_question, other, batch.ids)))
    assert torch.equal(with_other_questions[1], answers)
    assert (with_other_questions[0] - predicted).abs().max() > 1e-3
    assert torch.allclose(made.method.encode_answers(*batch.answers()), answers, atol=1e-5)


def test_the_prediction_has_no_gradient_from_the_answer(experiment: Experiment, batch: QuestionBatch) -> None:
    """Of all tokens of a row, its question, [SEP] and [PRED] move the prediction, and no other."""
    read: list[Tensor] = []  # embeddings [B, T, D]
    table = experiment.method.decoder.model.get_input_embeddings()
    hook = table.register_forward_hook(lambda _module, _inputs, found: read.append(found))
    predicted = experiment.method.predict_from_context(batch)
    hook.remove()
    (gradient,) = torch.autograd.grad(predicted.square().sum(), read)
    assert torch.equal(gradient.abs().sum(-1) > 0, batch.valid & ~batch.hidden)


def test_no_token_reads_those_behind_it(experiment: Experiment, batch: QuestionBatch) -> None:
    """Whatever mask it is given; all layers, the last of which is the output."""
    decoder = experiment.method.decoder
    changed = batch.ids.clone()
    changed[:, 8:] = 5
    with evaluating(decoder):
        states, others = decoder.states(batch.ids, batch.valid), decoder.states(changed, batch.valid)
        assert len(states) == 3
        assert torch.equal(states[-1], decoder(batch.ids, batch.valid))
    assert all(torch.equal(a[:, :8], b[:, :8]) for a, b in zip(states, others, strict=True))


def test_steps_without_the_prediction_have_no_masked_pass(
    experiment: Experiment, batch: QuestionBatch, folders: dict[str, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """Their share is that of `loss_dropout`, and they are the same ones in every run."""
    method = build(tmp_path, folders["gpt2"], "loss_dropout=0.75").method.train()
    passes: list[int] = []
    read = NanoJEPA.read
    monkeypatch.setattr(NanoJEPA, "read", lambda self, batch: passes.append(batch.draw) or read(self, batch))
    few = replace(batch, ids=batch.ids[:2], valid=batch.valid[:2], hidden=batch.hidden[:2], keys=batch.keys[:2],
                  followed=batch.followed[:2], pred_at=batch.pred_at[:2])  # fmt: skip
    with torch.no_grad():
        outputs = {draw: method(replace(few, draw=draw)) for draw in range(200)}
    with_it = [draw for draw, output in outputs.items() if "prediction" in output.terms]
    assert with_it == passes == [draw for draw in outputs if method.weight_of(draw)]
    assert len(with_it) / len(outputs) == pytest.approx(0.25, abs=0.08)
    assert all(set(output.terms) == {"tokens"} for draw, output in outputs.items() if draw not in with_it)
    method.eval()
    assert "prediction" in method(replace(few, draw=next(draw for draw in outputs if draw not in with_it))).terms


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(checkpoint.newest(run / "checkpoints") / checkpoint.WEIGHTS)


def trained(out: Path, overrides: Sequence[str]) -> api.Run:
    few = ("train.steps=6", "train.warmup_steps=1", "train.checkpoint_every=4", "train.health_every=6",
           "train.health_samples=32", "loss_dropout=0.5", "train.lr=1e-2")  # fmt: skip
    return api.train("nano_jepa", out=out, overrides=[*overrides, *few], progress=False)


def resumed(run: api.Run, copy: Path) -> Path:
    """A copy of the run that was stopped after its checkpoint of step 4 and went on."""
    shutil.copytree(run.path, copy)
    shutil.rmtree(checkpoint.newest(copy / "checkpoints"))
    assert checkpoint.newest_step(copy / "checkpoints") == 4
    api.train("", out=copy, resume=True, progress=False)
    assert checkpoint.newest_step(copy / "checkpoints") == 6
    return copy


def test_a_run_needs_neither_network_nor_the_folder_it_began_from(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that was resumed, with the dropout that GPT-2 has of its own, is the one that was not."""

    def refused(*_args: Any) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    began_from = tmp_path / "model"
    shutil.copytree(folders["gpt2"], began_from)
    run = trained(tmp_path / "run", settings(began_from))
    shutil.rmtree(began_from)
    vectors = api.load(run.path).encode(["Tom has 3 beads. How many are left?"])
    assert vectors.shape == (1, 16)
    mine, theirs = weights(resumed(run, tmp_path / "copy")), weights(run.path)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def test_adapters_learn_and_the_base_stays(folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    adapted = settings(folders["gpt2"], "decoder.lora=2", "decoder.lora.dropout=0.1")
    made = build_tiny(tmp_path / "assets", recipe=nano_jepa, settings=adapted)
    batch = next(train_batches(made, 0))
    base = PretrainedDecoder(str(tmp_path / "assets" / "decoder"), True, 96)
    with evaluating(made.method), evaluating(base):  # B is 0 at the start
        assert torch.equal(made.method.decoder(batch.ids, batch.valid), base(batch.ids, batch.valid))
    assert list(failed(check_experiment(made))) == []
    made.method.train()(batch).loss.backward()
    learning = {name for name, parameter in made.method.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in made.method.named_parameters() if "lora_" in name}
    assert len(learning) == 2 * 2 * 4  # A and B of four layers in two blocks

    run = trained(tmp_path / "run", adapted)
    after = weights(run.path)
    started = {f"decoder.model.{name}": value for name, value in base.model.state_dict().items()}
    kept = {name.replace("base_layer.", ""): value for name, value in after.items() if "lora_" not in name}
    assert {name for name in kept if name.startswith("decoder.")} <= set(started)
    assert [name for name, value in kept.items() if name in started and not torch.equal(value, started[name])] == []
    assert all(after[name].any() for name in after if "lora_B" in name)
    mine = weights(resumed(run, tmp_path / "copy"))
    assert [name for name in mine if not torch.equal(mine[name], after[name])] == []


def test_exports_have_the_adapters_in_their_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    """A plain model of the same class says the same, and what was adapted stays adapted."""
    pytest.importorskip("peft", reason="the extra lora is not installed")
    made = build(tmp_path, folders["gpt2"], "decoder.lora=2")
    batch, decoder = next(train_batches(made, 0)), made.method.decoder
    for name, parameter in decoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    with evaluating(decoder):
        said = decoder(batch.ids, batch.valid)
        plain = stock_model(decoder, causal=True)
        exported = plain(input_ids=batch.ids, attention_mask=batch.valid.long()).last_hidden_state
        assert torch.allclose(exported[batch.valid], said[batch.valid], atol=1e-5)
        assert torch.equal(decoder(batch.ids, batch.valid), said)
    assert type(plain).__name__ == "GPT2Model"
    assert not [name for name in plain.state_dict() if "lora" in name or "base_layer" in name]


def test_without_peft_the_extra_is_named(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        UserError, match=r"decoder\.lora\.rank=4 needs the package peft: pip install 'openjepa\[lora\]'"
    ):
        build(tmp_path, folders["gpt2"], "decoder.lora=4")


def test_an_adapter_without_a_layer_names_the_setting(folders: dict[str, Path]) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    model = PretrainedDecoder(str(folders["gpt2"]), True, 96)
    with pytest.raises(UserError, match=r"decoder\.lora\.target_modules='q_proj' fits no layer of GPT2LMHeadModel"):
        model.adapt(LoraConfig(rank=2, target_modules="q_proj"), "decoder.lora")


def test_what_cannot_be_opened_is_said_in_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path / "bloom", "bloom", vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2)
    shutil.copy(folders["gpt2"] / "tokenizer.json", tmp_path / "bloom")
    wrong = {
        r"decoder\.name='no/such/folder' cannot be loaded": ["decoder.name=no/such/folder", "tokenizer.kind=bpe",
                                                             "decoder.weights=false"],
        r"tokenizer\.kind=bpe does not go with the pretrained weights of decoder\.name": ["tokenizer.kind=bpe"],
        r"BloomForCausalLM takes no position_ids; choose": [f"decoder.name={tmp_path / 'bloom'}"],
        r"lora\.rank puts adapters into a pretrained decoder": ["decoder.lora=4", "decoder.name=null"],
    }  # fmt: skip
    for number, (message, overrides) in enumerate(wrong.items()):
        with pytest.raises(UserError, match=message) as caught:
            build(tmp_path / str(number), folders["gpt2"], *overrides)
        assert "\n" not in str(caught.value)
