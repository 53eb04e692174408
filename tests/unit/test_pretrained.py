"""Encoders of the transformers library behind our interface, on tiny models made on the spot: no network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext
from openjepa.core.seeding import generator_for
from openjepa.core.vocabulary import Vocabulary
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.pretrained import LIMIT_FILE, PretrainedEncoder
from openjepa.models.transformer import TextEncoder, gather_positions

VOCAB, B, T = 40, 2, 9
OWN = Vocabulary(VOCAB, 0)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SPECS: dict[str, dict[str, Any]] = {
    "bert": {**SIZES, "vocab_size": VOCAB, "max_position_embeddings": 20},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": VOCAB,
                   "max_position_embeddings": 20},
    "roberta": {**SIZES, "vocab_size": VOCAB, "max_position_embeddings": 22, "pad_token_id": 1},
}  # fmt: skip
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from transformers import AutoConfig, AutoModel

    made = {}
    for kind, sizes in SPECS.items():
        torch.manual_seed(0)
        made[kind] = tmp_path_factory.mktemp(kind)
        AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(made[kind])
    return made


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(5, VOCAB, (B, T), generator=generator_for(0, "ids"))


ALL = torch.ones(B, T, dtype=torch.bool)
KINDS = pytest.mark.parametrize("kind", SPECS)


def encoder(folder: Path) -> PretrainedEncoder:
    return PretrainedEncoder(str(folder)).eval()


@KINDS
def test_natural_positions_are_the_default(kind: str, folders: dict[str, Path], ids: Tensor) -> None:
    model, positions = encoder(folders[kind]), torch.arange(T).expand(B, T)
    assert torch.allclose(model(ids, ALL, positions), model(ids, ALL), atol=TOLERANCE)


@KINDS
def test_the_wrapped_model_says_the_same(kind: str, folders: dict[str, Path], ids: Tensor) -> None:
    from transformers import AutoModel

    valid = torch.arange(T)[None, :] < torch.tensor([[9], [5]])
    reference = AutoModel.from_pretrained(folders[kind], attn_implementation="eager").eval()
    said = reference(input_ids=ids, attention_mask=valid.long()).last_hidden_state
    assert torch.allclose(encoder(folders[kind])(ids, valid)[valid], said[valid], atol=TOLERANCE)


@KINDS
def test_dropping_the_last_tokens_is_a_shorter_text(kind: str, folders: dict[str, Path], ids: Tensor) -> None:
    model = encoder(folders[kind])
    positions = torch.arange(6).expand(B, 6)
    assert torch.allclose(model(ids[:, :6], ALL[:, :6], positions), model(ids[:, :6], ALL[:, :6]), atol=TOLERANCE)
    padded = torch.arange(T).expand(B, T) < 6
    assert torch.allclose(model(ids, padded)[:, :6], model(ids[:, :6], ALL[:, :6]), atol=TOLERANCE)


@KINDS
def test_dropping_tokens_in_the_middle_keeps_the_others_in_position(
    kind: str, folders: dict[str, Path], ids: Tensor
) -> None:
    """Tokens read alone at their positions = the whole text with the others masked out of the attention."""
    model, kept = encoder(folders[kind]), torch.tensor([0, 1, 5, 6, 8]).expand(B, 5)
    masked = torch.zeros(B, T, dtype=torch.bool).scatter(1, kept, True)
    alone = model(gather_positions(ids, kept), ALL[:, :5], kept)
    assert torch.allclose(
        alone, gather_positions(model(ids, masked, torch.arange(T).expand(B, T)), kept), atol=TOLERANCE
    )
    assert not torch.allclose(alone, model(gather_positions(ids, kept), ALL[:, :5]), atol=1e-3)


@KINDS
def test_sizes_and_layers(kind: str, folders: dict[str, Path], ids: Tensor) -> None:
    model = encoder(folders[kind])
    states = model.states(ids, ALL)
    assert [state.shape for state in states] == [(B, T, 16)] * 3
    assert torch.equal(states[-1], model(ids, ALL))
    assert (model.dim, model.max_len) == (16, 20)
    assert PretrainedEncoder(str(folders[kind]), max_len=12).max_len == 12
    longest = torch.full((1, 20), 7)
    assert model(longest, torch.ones_like(longest, dtype=torch.bool), torch.arange(20)[None]).isfinite().all()


@KINDS
def test_every_trainable_parameter_gets_a_gradient(kind: str, folders: dict[str, Path], ids: Tensor) -> None:
    model = PretrainedEncoder(str(folders[kind])).train()
    model(ids, ALL, torch.arange(T).expand(B, T)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert [name for name, p in model.named_parameters() if not p.requires_grad and "pooler" not in name] == []


@KINDS
def test_without_weights_the_config_alone_is_enough(
    kind: str, folders: dict[str, Path], tmp_path: Path, ids: Tensor
) -> None:
    encoder(folders[kind]).keep(tmp_path / "kept", weights=False)
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["config.json", LIMIT_FILE]
    torch.manual_seed(1)
    fresh = PretrainedEncoder(str(tmp_path / "kept"), weights=False).eval()
    trained = encoder(folders[kind])
    assert {n: p.shape for n, p in fresh.named_parameters()} == {n: p.shape for n, p in trained.named_parameters()}
    assert not torch.allclose(fresh(ids, ALL), trained(ids, ALL), atol=1e-2)


def test_what_cannot_be_loaded_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"encoder\.name='.*nowhere' cannot be loaded"):
        PretrainedEncoder(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text((folders["bert"] / "config.json").read_text())
    with pytest.raises(UserError, match="cannot be loaded"):  # no weights in it
        PretrainedEncoder(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((folders["bert"] / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):  # cut off
        PretrainedEncoder(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be loaded"):
        PretrainedEncoder(str(tmp_path), weights=False)


@pytest.mark.parametrize("weights", [True, False])
def test_a_run_keeps_its_base_encoder(weights: bool, folders: dict[str, Path], tmp_path: Path, ids: Tensor) -> None:
    """After the first build neither the hub nor the encoder's folder is needed: to resume, to load, or to compare."""
    config = EncoderConfig(name=str(folders["distilbert"]), max_len=12, weights=weights)
    first = build_encoder(config, OWN, BuildContext(tmp_path))
    gone = config.model_copy(update={"name": "gone/from-the-hub"})
    random = build_encoder(gone, OWN, BuildContext(tmp_path, random_init=True))
    assert not torch.allclose(random.eval()(ids, ALL), first.eval()(ids, ALL), atol=1e-2)
    random.load_state_dict(first.state_dict())
    assert torch.equal(random.eval()(ids, ALL), first.eval()(ids, ALL))
    again = build_encoder(gone, OWN, BuildContext(tmp_path))
    assert torch.equal(again.eval()(ids, ALL), first.eval()(ids, ALL)) == weights
    assert again.max_len == random.max_len == first.max_len == 12


@pytest.mark.parametrize(("limit", "set_to", "read"), [(7, None, 7), (7, 12, 12), (7, 500, 20), (900, None, 20)])
def test_max_len_defaults_to_the_encoders_own_limit(
    limit: int, set_to: int | None, read: int, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = tmp_path / "base"
    shutil.copytree(folders["distilbert"], base)
    (base / LIMIT_FILE).write_text(json.dumps({"max_seq_length": limit}))
    config = EncoderConfig(name=str(base), max_len=set_to)
    built = [build_encoder(config, OWN, BuildContext(tmp_path / "assets", random_init=r)) for r in (False, True)]
    assert [encoder.max_len for encoder in built] == [read, read]
    assert capsys.readouterr().err == ""  # nothing is shorter than it could be


def test_a_shorter_limit_than_the_encoders_own_is_said_once(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = EncoderConfig(name=str(folders["bert"]), max_len=10)
    for _ in range(2):
        build_encoder(config, OWN, BuildContext(tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert "encoder.max_len=10: documents are split into rows of 10 tokens, though" in line
    assert "reads 20" in line


def test_a_damaged_limit_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["bert"], tmp_path / "base")
    for text in ("{", "[]", "3"):
        (tmp_path / "base" / LIMIT_FILE).write_text(text)
        with pytest.raises(UserError, match=LIMIT_FILE):
            PretrainedEncoder(str(tmp_path / "base"))


def test_without_a_name_the_encoder_is_our_own(tmp_path: Path) -> None:
    encoder = build_encoder(EncoderConfig(dim=8, depth=1, heads=2, max_len=10), OWN, BuildContext(tmp_path))
    assert isinstance(encoder, TextEncoder)
    assert (encoder.dim, encoder.max_len, encoder.token.num_embeddings) == (8, 10, VOCAB)
