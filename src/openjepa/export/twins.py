"""Encoders of OpenJEPA as stock `transformers` models with the same weights and the same outputs.

| encoder | stock class | why it is exact |
|---|---|---|
| `TextEncoder`, bidirectional | XLM-RoBERTa-XL | pre-norm, learned positions, no norm on the embeddings, a final norm |
| `TextEncoder` and `Decoder`, causal | GPT-2 | pre-norm, learned positions, causal, a final norm |
| `ViT`, linear stem | SigLIP's vision tower without its head | pre-norm, no [CLS], fixed positions, a final norm |
| `PretrainedEncoder`, `PretrainedViT` | their own class | they wrap it |
| `PretrainedDecoder` | its own class without the output head, adapters merged | it wraps it |
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.core.encoder import Encoder
from openjepa.core.errors import UserError
from openjepa.models.lora import merged
from openjepa.models.pretrained import ATTENTION, PretrainedEncoder
from openjepa.models.pretrained_decoder import PretrainedDecoder
from openjepa.models.pretrained_vision import PretrainedViT
from openjepa.models.quiet import quiet_transformers
from openjepa.models.transformer import Block, TextEncoder, Trunk
from openjepa.models.vit import ViT

TensorsByName = Iterator[tuple[str, Tensor]]


def stock_model(encoder: Encoder | nn.Module, pad_id: int | None = None, causal: bool = False) -> Any:
    """Return the `transformers` model of an encoder, in eval mode and fp32 on the CPU.

    Args:
        encoder: a text or vision encoder.
        pad_id: the tokenizer's padding id; text encoders need it.
        causal: whether the embedding reads each position's past only.

    Raises UserError where no stock class computes the same.
    """
    with quiet_transformers():
        match encoder:
            case PretrainedEncoder() | PretrainedViT():
                return _plain_attention(encoder.model)
            case PretrainedDecoder():
                return _plain_attention(merged(encoder.model).base_model)
            case TextEncoder() if causal:
                return _filled(_gpt2(encoder), _gpt2_tensors(encoder))
            case TextEncoder() if pad_id is not None:
                return _filled(_xlm_roberta_xl(encoder, pad_id), _xlm_roberta_xl_tensors(encoder, pad_id))
            case ViT() if isinstance(encoder.stem, nn.Linear):
                return _filled(_siglip_vision(encoder), _siglip_vision_tensors(encoder))
            case ViT():
                raise UserError(
                    "encoder.stem=conv has no stock class in transformers; --to onnx exports it, or train with "
                    "encoder.stem=linear"
                )
    raise UserError(f"{type(encoder).__name__} has no stock class in transformers; --to onnx may export it")


def _plain_attention(model: Any) -> Any:
    """A copy of a transformers model on its library's own attention."""
    plain = copy.deepcopy(model).float().cpu().eval()
    if plain.config._attn_implementation == ATTENTION:
        plain.set_attn_implementation("sdpa")
    return plain


def _filled(model: Any, tensors: TensorsByName) -> Any:
    """`model` with these tensors as its weights; every weight must be among them."""
    found = {name: value.detach().float().cpu().contiguous() for name, value in tensors}
    model.load_state_dict(found, strict=True)
    return model.eval()


def _xlm_roberta_xl(encoder: TextEncoder, pad_id: int) -> Any:
    from transformers import XLMRobertaXLConfig, XLMRobertaXLModel

    block = _first_block(encoder.trunk)
    config = XLMRobertaXLConfig(
        vocab_size=encoder.token.num_embeddings,
        hidden_size=encoder.dim,
        num_hidden_layers=len(encoder.trunk.blocks),
        num_attention_heads=block.heads,
        intermediate_size=_hidden(block),
        hidden_act="gelu",
        hidden_dropout_prob=block.dropout,
        attention_probs_dropout_prob=block.dropout,
        max_position_embeddings=encoder.max_len + pad_id + 1,  # the first token's position is pad_id + 1
        type_vocab_size=1,
        layer_norm_eps=block.norm1.eps,
        pad_token_id=pad_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    return XLMRobertaXLModel(config, add_pooling_layer=False)


def _xlm_roberta_xl_tensors(encoder: TextEncoder, pad_id: int) -> TensorsByName:
    before = encoder.position_embedding.weight.new_zeros(pad_id + 1, encoder.dim)
    yield "embeddings.word_embeddings.weight", encoder.token.weight
    yield "embeddings.position_embeddings.weight", torch.cat([before, encoder.position_embedding.weight])
    yield "embeddings.token_type_embeddings.weight", encoder.token.weight.new_zeros(1, encoder.dim)
    for number, block in enumerate(_blocks(encoder.trunk)):
        layer = f"encoder.layer.{number}"
        yield from _linear(f"{layer}.attention.self_attn_layer_norm", block.norm1)
        for part, name in enumerate(("query", "key", "value")):
            yield from _third(f"{layer}.attention.self.{name}", block.qkv, part)
        yield from _linear(f"{layer}.attention.output.dense", block.out)
        yield from _linear(f"{layer}.LayerNorm", block.norm2)
        yield from _linear(f"{layer}.intermediate.dense", block.mlp[0])
        yield from _linear(f"{layer}.output.dense", block.mlp[2])
    yield from _linear("encoder.LayerNorm", encoder.trunk.norm)


def _gpt2(decoder: TextEncoder) -> Any:
    from transformers import GPT2Config, GPT2Model

    block = _first_block(decoder.trunk)
    return GPT2Model(
        GPT2Config(
            vocab_size=decoder.token.num_embeddings,
            n_positions=decoder.max_len,
            n_embd=decoder.dim,
            n_layer=len(decoder.trunk.blocks),
            n_head=block.heads,
            n_inner=_hidden(block),
            activation_function="gelu",
            layer_norm_epsilon=block.norm1.eps,
            embd_pdrop=block.dropout,
            attn_pdrop=block.dropout,
            resid_pdrop=block.dropout,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def _gpt2_tensors(decoder: TextEncoder) -> TensorsByName:
    """GPT-2's products are `x @ weight`: every matrix is transposed."""
    yield "wte.weight", decoder.token.weight
    yield "wpe.weight", decoder.position_embedding.weight
    for number, block in enumerate(_blocks(decoder.trunk)):
        layer = f"h.{number}"
        yield from _linear(f"{layer}.ln_1", block.norm1)
        yield from _linear(f"{layer}.attn.c_attn", block.qkv, transposed=True)
        yield from _linear(f"{layer}.attn.c_proj", block.out, transposed=True)
        yield from _linear(f"{layer}.ln_2", block.norm2)
        yield from _linear(f"{layer}.mlp.c_fc", block.mlp[0], transposed=True)
        yield from _linear(f"{layer}.mlp.c_proj", block.mlp[2], transposed=True)
    yield from _linear("ln_f", decoder.trunk.norm)


def _siglip_vision(encoder: ViT) -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    block = _first_block(encoder.trunk)
    side = encoder.grid[0]
    config = SiglipVisionConfig(
        hidden_size=encoder.dim,
        intermediate_size=_hidden(block),
        num_hidden_layers=len(encoder.trunk.blocks),
        num_attention_heads=block.heads,
        image_size=side * encoder.patch,
        patch_size=encoder.patch,
        hidden_act="gelu",
        layer_norm_eps=block.norm1.eps,
    )
    config.vision_use_head = False
    return SiglipVisionModel(config)


def _siglip_vision_tensors(encoder: ViT) -> TensorsByName:
    stem = encoder.stem
    assert isinstance(stem, nn.Linear)
    yield "embeddings.patch_embedding.weight", stem.weight.view(encoder.dim, 3, encoder.patch, encoder.patch)
    yield "embeddings.patch_embedding.bias", stem.bias
    yield "embeddings.position_embedding.weight", encoder.position_embedding
    for number, block in enumerate(_blocks(encoder.trunk)):
        layer = f"encoder.layers.{number}"
        yield from _linear(f"{layer}.layer_norm1", block.norm1)
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            yield from _third(f"{layer}.self_attn.{name}", block.qkv, part)
        yield from _linear(f"{layer}.self_attn.out_proj", block.out)
        yield from _linear(f"{layer}.layer_norm2", block.norm2)
        yield from _linear(f"{layer}.mlp.fc1", block.mlp[0])
        yield from _linear(f"{layer}.mlp.fc2", block.mlp[2])
    yield from _linear("post_layernorm", encoder.trunk.norm)


def _linear(name: str, module: Any, transposed: bool = False) -> TensorsByName:
    """Weight and bias of a linear layer or a norm."""
    yield f"{name}.weight", module.weight.T if transposed else module.weight
    yield f"{name}.bias", module.bias


def _third(name: str, module: nn.Linear, part: int) -> TensorsByName:
    """Weight and bias of the query (0), key (1) or value (2) of a joint projection."""
    yield f"{name}.weight", module.weight.chunk(3)[part]
    yield f"{name}.bias", module.bias.chunk(3)[part]


def _blocks(trunk: Trunk) -> list[Block]:
    return [block for block in trunk.blocks if isinstance(block, Block)]


def _first_block(trunk: Trunk) -> Block:
    return _blocks(trunk)[0]


def _hidden(block: Block) -> int:
    layer = block.mlp[0]
    assert isinstance(layer, nn.Linear)
    return layer.out_features
