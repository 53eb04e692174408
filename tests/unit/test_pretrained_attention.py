"""`models.pretrained.attention`: the same numbers as transformers' own attentions, in their shapes, fast or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openjepa.models import pretrained
from openjepa.models.pretrained import ATTENTION, PretrainedEncoder, attention, with_fast_attention

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 50, "max_position_embeddings": 32}
CONFIGS = {
    "distilbert": lambda: transformers.DistilBertConfig(**SIZES, n_layers=2, dim=32, n_heads=4, hidden_dim=64),
    "bert": lambda: transformers.BertConfig(
        **SIZES, num_hidden_layers=2, hidden_size=32, num_attention_heads=4, intermediate_size=64
    ),
}


@pytest.fixture(params=CONFIGS)
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> PretrainedEncoder:
    CONFIGS[request.param]().save_pretrained(tmp_path)
    torch.manual_seed(0)
    return PretrainedEncoder(str(tmp_path), weights=False)


def texts(padded: bool) -> tuple[Tensor, Tensor]:
    """ids and valid, [3, 9]; the second row has 4 real tokens if padded."""
    ids = torch.randint(5, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    valid = torch.ones(3, 9, dtype=torch.bool)
    valid[1, 4:] = not padded
    return ids, valid


def run(encoder: PretrainedEncoder, implementation: str, padded: bool, bf16: bool) -> tuple[Tensor, list[Tensor]]:
    """Latents of the real tokens and all gradients of their squares, under this attention."""
    encoder.eval().model.set_attn_implementation(implementation)
    ids, valid = texts(padded)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        latents = encoder(ids, valid)[valid]  # [N, D]
    weight = (
        torch.arange(latents.numel()).reshape(latents.shape).float().sin()
    )  # a plain sum has no gradient behind a norm
    trained = [p for p in encoder.parameters() if p.requires_grad]
    return latents, list(torch.autograd.grad((latents * weight).sum(), trained))


@pytest.mark.parametrize("other", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [True, False])
def test_latents_and_gradients_equal_transformers_own(encoder: PretrainedEncoder, other: str, padded: bool) -> None:
    encoder.double()  # the order of terms in a sum then does not matter
    ours, our_gradients = run(encoder, ATTENTION, padded, bf16=False)
    theirs, their_gradients = run(encoder, other, padded, bf16=False)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_gradients, their_gradients)


@pytest.mark.parametrize("padded", [True, False])
def test_bf16_is_as_close_to_fp32_as_transformers_own(encoder: PretrainedEncoder, padded: bool) -> None:
    exact, exact_gradients = run(encoder, "eager", padded, bf16=False)

    def errors(implementation: str) -> tuple[float, float]:
        latents, gradients = run(encoder, implementation, padded, bf16=True)
        off = torch.cat([(a - b).flatten() for a, b in zip(gradients, exact_gradients, strict=True)])
        return float((latents - exact).detach().norm()), float(off.norm())

    ours, theirs = errors(ATTENTION), errors("eager")
    assert 0 < ours[0] < 1.5 * theirs[0]  # 0 would mean that bf16 was not used
    assert 0 < ours[1] < 1.5 * theirs[1]


def test_padding_cannot_be_read(encoder: PretrainedEncoder) -> None:
    ids, valid = texts(padded=True)
    other = torch.where(valid, ids, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.eval()(ids, valid)[valid], encoder(other, valid)[valid])


def test_encoders_use_it_and_saved_configs_do_not_tell(encoder: PretrainedEncoder, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    calls = []

    def spy(*args: Any) -> Tensor:
        calls.append(args[3])
        return args[0]

    monkeypatch.setattr(pretrained, "attend", spy)
    encoder(*texts(padded=True))
    assert len(calls) == 2  # one a layer
    assert all(mask.dtype == torch.bool for mask in calls)
    encoder.keep(tmp_path / "saved", weights=False)
    assert ATTENTION not in (tmp_path / "saved" / "config.json").read_text()


def test_models_on_another_attention_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Tensor) -> Tensor:
        raise AssertionError("attention was replaced")

    monkeypatch.setattr(pretrained, "attend", refuse)
    ids = torch.tensor([[5, 6, 7]])
    eager = transformers.AutoModel.from_config(CONFIGS["distilbert"](), attn_implementation="eager")
    assert with_fast_attention(eager)(ids).last_hidden_state.isfinite().all()
    with pytest.raises(AssertionError, match="attention was replaced"):
        with_fast_attention(transformers.AutoModel.from_config(CONFIGS["distilbert"]()))(ids)


class Asked(nn.Module):
    """What transformers' functions read of an attention module."""

    def __init__(self, is_causal: bool = False, num_key_value_groups: int = 1) -> None:
        super().__init__()
        self.is_causal, self.num_key_value_groups = is_causal, num_key_value_groups


@pytest.mark.parametrize(
    ("module", "key_heads", "arguments"),
    [
        (Asked(is_causal=True), 4, {}),
        (Asked(), 4, {"is_causal": True}),
        (Asked(), 4, {"scaling": 1.0}),
        (Asked(), 4, {"position_bias": torch.arange(36.0).reshape(1, 1, 6, 6)}),
        (Asked(num_key_value_groups=2), 2, {}),
    ],
    ids=["causal module", "causal call", "scale", "bias", "grouped heads"],
)
def test_what_attend_cannot_express_is_left_to_transformers(module: Asked, key_heads: int, arguments: dict) -> None:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 6, 8, generator=draw).bfloat16()
    key, value = torch.randn(2, 2, key_heads, 6, 8, generator=draw).bfloat16()
    ours, _ = attention(module, query, key, value, None, **arguments)
    theirs, _ = transformers.AttentionInterface()["sdpa"](module, query, key, value, None, **arguments)
    plain, _ = attention(Asked(), query, query, query, None)
    assert torch.equal(ours, theirs)
    assert ours.shape == plain.shape == (2, 6, 4, 8)
