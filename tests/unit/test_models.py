"""Networks: what is not there changes nothing, positions are those given, and the teacher trails in closed form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.errors import ConfigError
from openjepa.core.progress import Progress
from openjepa.core.schedules import constant, linear
from openjepa.core.seeding import generator_for
from openjepa.models.attention import LOWEST, SHORT, attend
from openjepa.models.predictors import (
    AttentionPredictor,
    MLPPredictor,
    SequencePredictorConfig,
    build_predictor,
    linear_biases,
)
from openjepa.models.target import EMATarget
from openjepa.models.transformer import Block, TextEncoder, Trunk, gather_positions, mean_pool

B, T, D, VOCAB, MAX_LEN = 3, 10, 16, 50, 24
TOLERANCE = 1e-6


@pytest.fixture
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(VOCAB, D, depth=2, heads=4, max_len=MAX_LEN).eval()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(VOCAB, (B, T), generator=generator_for(0, "ids"))


@pytest.fixture
def valid() -> Tensor:
    return torch.arange(T)[None, :] < torch.tensor([[10], [6], [3]])


def normal(*shape: int, address: str = "x") -> Tensor:
    return torch.randn(*shape, generator=generator_for(0, address))


def test_the_content_of_padding_changes_nothing(encoder: TextEncoder, ids: Tensor, valid: Tensor) -> None:
    other = torch.where(valid, ids, (ids + 7) % VOCAB)
    assert not torch.equal(other, ids)
    assert torch.equal(encoder(ids, valid)[valid], encoder(other, valid)[valid])


def test_the_amount_of_padding_changes_nothing(encoder: TextEncoder, ids: Tensor, valid: Tensor) -> None:
    wide = encoder(F.pad(ids, (0, 9)), F.pad(valid, (0, 9)))
    assert torch.allclose(wide[:, :T][valid], encoder(ids, valid)[valid], atol=TOLERANCE)
    alone = encoder(ids[1:2, :6], valid[1:2, :6])  # row 1 without the others
    assert torch.allclose(wide[1, :6], alone[0], atol=TOLERANCE)


def test_tokens_may_be_read_in_any_order_if_told_their_positions(encoder: TextEncoder, ids: Tensor) -> None:
    order = torch.stack([torch.randperm(T, generator=generator_for(0, i)) for i in range(B)])  # [B, T]
    full = torch.ones(B, T, dtype=torch.bool)
    there = encoder(gather_positions(ids, order), full, order)
    assert torch.allclose(there, gather_positions(encoder(ids, full), order), atol=TOLERANCE)
    unmoved = encoder(gather_positions(ids, order), full)
    assert not torch.allclose(unmoved, there, atol=0.01)  # positions do matter


def test_positions_default_to_the_natural_ones(encoder: TextEncoder, ids: Tensor, valid: Tensor) -> None:
    positions = torch.arange(T).expand(B, T)
    assert torch.equal(encoder(ids, valid), encoder(ids, valid, positions))


def test_states_begin_with_the_words_and_end_in_the_output(encoder: TextEncoder, ids: Tensor, valid: Tensor) -> None:
    states = encoder.states(ids, valid)
    assert [state.shape for state in states] == [(B, T, D)] * 3
    assert torch.equal(states[0], encoder.token(ids) + encoder.position_embedding.weight[:T])
    assert torch.equal(states[-1], encoder(ids, valid))
    for left_out in (1, 2, 9):  # the words always stay
        below = encoder.states(ids, valid, None, left_out)
        assert len(below) == max(1, len(states) - left_out)
        assert all(torch.equal(a, b) for a, b in zip(below, states, strict=False))


def test_dropout_is_for_training_only(ids: Tensor, valid: Tensor) -> None:
    encoder = TextEncoder(VOCAB, D, 1, 4, MAX_LEN, dropout=0.5)
    assert not torch.equal(encoder(ids, valid), encoder(ids, valid))
    encoder.eval()
    assert torch.equal(encoder(ids, valid), encoder(ids, valid))


def test_a_block_is_a_plain_pre_norm_block() -> None:
    """Against torch's own implementation with the same weights."""
    torch.manual_seed(0)
    block = Block(D, heads=4)
    reference = nn.TransformerEncoderLayer(
        D, 4, 4 * D, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True
    )
    own, theirs = dict(block.named_parameters()), dict(reference.named_parameters())
    names = {
        "norm1": "norm1", "norm2": "norm2", "qkv.": "self_attn.in_proj_", "out": "self_attn.out_proj",
        "mlp.0": "linear1", "mlp.2": "linear2",
    }  # fmt: skip
    with torch.no_grad():
        for name, parameter in own.items():
            start = next(prefix for prefix in names if name.startswith(prefix))
            theirs[name.replace(start, names[start])].copy_(parameter)
    x = normal(B, T, D)
    assert torch.allclose(block(x, None), reference(x), atol=1e-5)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match=r"30.*4 heads"):
        Trunk(30, 1, 4)


@pytest.mark.parametrize("tokens", [5, 48, SHORT, SHORT + 1])
def test_attention_in_bf16_is_attention(tokens: int) -> None:
    q, k, v = (normal(2, 4, tokens, 8, address=name) for name in "qkv")
    may_attend = (torch.arange(tokens) < tokens - 2)[None, None, None, :]
    exact = F.scaled_dot_product_attention(q, k, v, may_attend)
    short = attend(*(x.bfloat16() for x in (q, k, v)), may_attend)
    assert short.dtype == torch.bfloat16
    assert torch.allclose(short.float(), exact, atol=0.03)  # bf16 has 8 bits: 0.4 % of values of about 1
    assert torch.equal(attend(q, k, v, may_attend), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_added_to_scores_says_as_much_as_what_may_be_read(dtype: torch.dtype) -> None:
    q, k, v = (normal(2, 4, 6, 8, address=name).to(dtype) for name in "qkv")
    may_attend = torch.tensor([True, True, True, False, True, False])[None, None, None, :]
    added = torch.zeros(2, 4, 6, 6).masked_fill(~may_attend, LOWEST)
    assert torch.equal(attend(q, k, v, added), attend(q, k, v, may_attend))
    nearer = torch.full((2, 4, 6, 6), LOWEST).diagonal_scatter(torch.zeros(2, 4, 6), dim1=2, dim2=3)
    assert torch.allclose(attend(q, k, v, nearer), v)  # each position reads itself alone


def test_attention_in_bf16_never_sees_a_masked_value() -> None:
    q, k, v = (normal(1, 1, 6, 8, address=name).bfloat16() for name in "qkv")
    may_attend = torch.tensor([True, True, True, False, True, False])[None, None, None, :]
    changed = torch.where(may_attend.transpose(-1, -2), v, 1e4 * torch.ones_like(v))
    assert torch.equal(attend(q, k, v, may_attend), attend(q, k, changed, may_attend))


def test_mean_pool_and_take() -> None:
    x = torch.arange(12.0).view(1, 4, 3)
    pooled = mean_pool(x, torch.tensor([[True, False, True, False]]))
    assert torch.equal(pooled, torch.tensor([[3.0, 4.0, 5.0]]))
    assert torch.equal(mean_pool(x, torch.zeros(1, 4, dtype=torch.bool)), torch.zeros(1, 3))  # nothing: no NaN
    assert mean_pool(x.bfloat16(), torch.ones(1, 4, dtype=torch.bool)).dtype == torch.float32
    at = torch.tensor([[3, 0]])
    assert torch.equal(gather_positions(x, at), x[:, [3, 0]])
    assert torch.equal(gather_positions(x[..., 0], at), x[:, [3, 0], 0])


PREDICTORS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLPPredictor(D, 8, 5, MAX_LEN),
    "attention": lambda: AttentionPredictor(D, 8, 5, 1, 2, MAX_LEN),
    "alibi": lambda: AttentionPredictor(D, 8, 5, 1, 2, MAX_LEN, alibi=True),
}


def predictor_inputs(shown: bool) -> dict[str, Tensor | None]:
    """Context of 7, 5 and 3 tokens; 4, 3 and 1 hidden positions."""
    positions = torch.stack([torch.randperm(T, generator=generator_for(0, "p", i)) for i in range(B)])  # [B, T]
    return {
        "context": normal(B, 6, D),
        "context_positions": positions[:, :6],
        "context_valid": torch.arange(6)[None, :] < torch.tensor([[6], [5], [3]]),
        "slots": normal(B, 4, D, address="slots") if shown else None,
        "hidden_positions": positions[:, 6:],
        "hidden_valid": torch.arange(4)[None, :] < torch.tensor([[4], [3], [1]]),
    }


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("kind", PREDICTORS)
def test_predictions_do_not_depend_on_padding(kind: str, shown: bool) -> None:
    """Neither on its content nor its amount, in the context or among the hidden positions."""
    torch.manual_seed(0)
    predictor, given = PREDICTORS[kind]().eval(), predictor_inputs(shown)
    together = predictor(**given)
    assert together.shape == (B, 4, 5)
    for row, (context, hidden) in enumerate([(6, 4), (5, 3), (3, 1)]):
        alone = {
            name: None if x is None else x[row : row + 1, : context if name.startswith("context") else hidden]
            for name, x in given.items()
        }
        assert torch.allclose(together[row, :hidden], predictor(**alone)[0], atol=TOLERANCE)


@pytest.mark.parametrize("kind", PREDICTORS)
def test_predictions_know_their_position(kind: str) -> None:
    torch.manual_seed(0)
    predicted = PREDICTORS[kind]().eval()(**predictor_inputs(shown=False))
    assert (predicted[0, 0] - predicted[0, 1]).abs().max() > 1e-4


def test_linear_biases_in_closed_form() -> None:
    positions = torch.tensor([[0, 3, 1]])
    biases = linear_biases(positions, torch.tensor([True, True, False])[None, None, None], heads=2)  # [1, 2, 3, 3]
    for head, slope in enumerate((2**-4, 2**-8)):
        assert biases[0, head, :, :2].tolist() == [[0, -3 * slope], [-3 * slope, 0], [-slope, -2 * slope]]
    assert (biases[..., 2] == LOWEST).all()


def test_with_alibi_the_nearest_counts_most_from_the_start() -> None:
    """How far a prediction moves if one context latent does falls with its distance, averaged over fresh predictors."""
    context = torch.stack([normal(1, 9, D)[0]] * 10)  # nine latents as they are, and with each of them changed
    for i in range(9):
        context[i + 1, i] += 5.0
    positions, asked = torch.arange(9).expand(10, -1), torch.zeros(10, 1, dtype=torch.int64)
    moved = torch.zeros(9)
    for seed in range(60):
        torch.manual_seed(seed)
        predictor = AttentionPredictor(D, 8, 5, 1, 8, MAX_LEN, alibi=True).eval()
        with torch.no_grad():
            predictor.trunk.blocks[0].qkv.weight[:16].zero_()  # queries and keys say nothing: what is left is distance
            out = predictor(context, positions, torch.ones(10, 9, dtype=torch.bool), None, asked, asked == 0)[:, 0]
        moved += (out[1:] - out[:1]).norm(dim=1) / 60
    assert (moved[::2].diff() < 0).all()
    assert moved[0] > 1.5 * moved[4] > 1.5 * moved[8]


def test_alibi_needs_attention_over_positions() -> None:
    with pytest.raises(ConfigError, match=r"give predictor\.kind=attention"):
        build_predictor(SequencePredictorConfig(alibi=True, kind="mlp"), D, D, MAX_LEN)


class WithBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop, self.norm = nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.drop(self.layer(x)))


def test_the_teacher_trails_in_closed_form() -> None:
    """After k updates towards a student that stays: teacher = m^k start + (1 - m^k) student."""
    online = WithBuffer()
    target = EMATarget(online, constant(0.9))
    start = target.module.layer.weight.clone()
    with torch.no_grad():
        online.layer.weight.add_(1.0)
    for step in range(7):
        target.update(online, Progress(step, 7))
    assert torch.allclose(target.module.layer.weight, 0.9**7 * start + (1 - 0.9**7) * online.layer.weight, atol=1e-6)


def test_the_momentum_follows_its_schedule() -> None:
    online = WithBuffer()
    target = EMATarget(online, linear(0.0, 1.0))
    with torch.no_grad():
        online.layer.weight.add_(1.0)
    target.update(online, Progress(0, 10))
    copied = target.module.layer.weight.clone()
    assert torch.equal(copied, online.layer.weight)  # momentum 0: a copy
    with torch.no_grad():
        online.layer.weight.add_(1.0)
    target.update(online, Progress(10, 10))
    assert torch.equal(target.module.layer.weight, copied)  # momentum 1: frozen


def test_the_teacher_copies_buffers_and_never_trains() -> None:
    online = WithBuffer()
    method = nn.ModuleDict({"online": online, "target": EMATarget(online, constant(0.99))}).train()
    target = method["target"]
    assert isinstance(target, EMATarget)
    assert online.training
    assert not any(module.training for module in target.modules())
    assert not any(parameter.requires_grad for parameter in target.parameters())
    online(normal(8, 3))  # moves the running statistics
    target.update(online, Progress(0, 1))
    for mine, theirs in zip(target.module.buffers(), online.buffers(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()
    x = normal(4, 3).requires_grad_()
    assert not target(x).requires_grad
    assert torch.equal(target(x), target(x))
