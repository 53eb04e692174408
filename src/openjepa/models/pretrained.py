"""Any `transformers` text encoder, by hub id or local folder, behind the interface of `TextEncoder`.

Decoders (`pretrained_decoder`) are loaded here as well. Encoders that take `position_ids` can read visible tokens only,
at their true positions. Where there is no such argument, the difference of position embeddings is added to the word
embeddings, which the model's own layer then completes to the true position.

Where transformers would choose its "sdpa" attention, the same attention is computed by `attend`, which avoids the CPU's
fused kernel where it is slower. Where rows are mostly padding, texts share rows. Neither changes weights, configs or
saved files.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from openjepa.core import hub
from openjepa.core.atomic import replaced_folder
from openjepa.core.encoder import Modality
from openjepa.core.errors import UserError, first_line
from openjepa.core.vocabulary import Vocabulary
from openjepa.models.attention import attend
from openjepa.models.packing import packs
from openjepa.models.quiet import quiet_transformers
from openjepa.models.sentence_head import read_head, stored_json
from openjepa.models.sequence_packing import SequencePacking
from openjepa.models.transformer import key_mask

LIMIT_FILE = "sentence_bert_config.json"
ATTENTION = "openjepa"  # name under which `attention` is registered with transformers
# families whose attention depends only on positions and the mask: neither causal, nor windowed, nor biased
PACKED = frozenset({"albert", "bert", "camembert", "distilbert", "electra", "nomic_bert", "roberta", "xlm-roberta"})
BEYOND_ATTEND = ("position_bias", "softcap", "cache")  # arguments of transformers' sdpa that `attend` does not have


class PretrainedEncoder(nn.Module):
    """A transformers encoder. `name` is a hub id or a folder; `weights=False` builds it only from its config.

    Its embedding fits `vocab`: with weights it grows if needed, without them it has exactly that size. `max_len`
    (tokens) defaults to the model's limit (that of sentence-transformers, else its positions). `setting` is the key of
    the name, for messages.
    """

    modality: Modality = "text"

    def __init__(
        self,
        name: str,
        weights: bool = True,
        max_len: int | None = None,
        vocab: Vocabulary | None = None,
        setting: str = "encoder.name",
    ) -> None:
        super().__init__()
        self.model: Any = load_model(name, weights, vocab, setting)
        config = self.model.config
        self.dim: int = config.hidden_size if hasattr(config, "hidden_size") else config.dim
        self.first_position = first_position(self.model)
        self.room: int = config.max_position_embeddings - self.first_position  # tokens of a row, whatever `max_len`
        self.head = read_head(name)  # None = the mean of its states is the embedding
        limit = sentence_limit(name, self.head is not None)
        self.own_max_len: int = min(limit or self.room, self.room)
        self.max_len: int = min(max_len or self.own_max_len, self.room)
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        for parameter in unused_parameters(self.model):
            parameter.requires_grad_(False)

    def states(self, ids: Tensor, valid: Tensor, positions: Tensor | None = None, skip_top: int = 0) -> list[Tensor]:
        """Embeddings and the latents of every layer, each [B, T, D]; arguments as for `TextEncoder.states`.

        The model computes all layers, also those that `skip_top` leaves out.
        """
        states, packing = self._read(ids, valid, positions)
        used = states[: max(1, len(states) - skip_top)]
        return list(used) if packing is None else [packing.unpack(state) for state in used]

    def forward(self, ids: Tensor, valid: Tensor, positions: Tensor | None = None) -> Tensor:
        """The last layer's latents [B, T, D]."""
        states, packing = self._read(ids, valid, positions)
        return states[-1] if packing is None else packing.unpack(states[-1])

    def packing(self, valid: Tensor) -> SequencePacking | None:
        """The packing of these texts into fewer positions; None if it is impossible or saves too little."""
        config = self.model.config
        mask_decides = config._attn_implementation == ATTENTION and not getattr(config, "is_decoder", False)
        if valid.ndim == 3 or config.model_type not in PACKED or not mask_decides or not packs(valid):
            return None
        packing = SequencePacking(valid.long() - 1 if valid.dtype == torch.bool else valid, self.room)
        return packing if packing.worth else None

    def _read(
        self, ids: Tensor, valid: Tensor, positions: Tensor | None
    ) -> tuple[tuple[Tensor, ...], SequencePacking | None]:
        """Embeddings and all layers, each [B, T, D]; or packed [R, W, D], with the packing."""
        packing = self.packing(valid)
        if positions is None and (self.takes_positions or packing is not None):
            positions = torch.arange(ids.shape[1], device=ids.device)  # [T]
        if positions is not None:
            positions = positions.expand_as(ids)  # [B, T]
        if packing is not None and positions is not None:
            # each [R, W]
            ids = packing.pack(ids)
            valid = packing.segments
            positions = packing.pack(positions)
        inputs: dict[str, Any] = {"attention_mask": self._mask(valid), "output_hidden_states": True}
        if positions is None:
            inputs["input_ids"] = ids
        elif self.takes_positions:
            inputs |= {"input_ids": ids, "position_ids": positions + self.first_position}
        else:
            inputs["inputs_embeds"] = self._moved_embeddings(ids, positions)
        return self.model(**inputs).hidden_states, packing

    def _mask(self, valid: Tensor) -> Tensor:
        if valid.ndim == 2 and valid.dtype == torch.bool:
            return valid.long()
        return attention_mask(self.model.config, key_mask(valid))

    def _moved_embeddings(self, ids: Tensor, positions: Tensor) -> Tensor:
        table = self.model.embeddings
        natural = torch.arange(ids.shape[1], device=ids.device)  # [T]
        return table.word_embeddings(ids) + table.position_embeddings(positions) - table.position_embeddings(natural)

    def keep(self, folder: Path, weights: bool) -> None:
        """Save all that the model can be rebuilt from without the hub: config, limit and, with `weights`, weights."""
        with replaced_folder(folder) as inside:
            save_model(self.model, inside, weights)
            if self.head is not None:
                self.head.keep(inside)
            (inside / LIMIT_FILE).write_text(json.dumps({"max_seq_length": self.own_max_len}), encoding="utf-8")


def save_model(model: Any, folder: Path, weights: bool) -> None:
    """Save a transformers model for `load_model`: config.json and, with `weights`, model.safetensors."""
    if not weights:
        model.config.save_pretrained(folder)
        return
    with quiet_transformers():
        model.save_pretrained(folder)


def sentence_limit(name: str, has_head: bool) -> int | None:
    """The longest text in tokens that the model behind `name` was made for, as sentence-transformers keeps it.

    None where it does not say. Releases before 6 keep it in a file of its own, later ones with the tokenizer of a model
    that has a head.
    """
    limit = _setting(name, LIMIT_FILE, "max_seq_length")
    if limit is None and has_head:
        limit = _setting(name, "tokenizer_config.json", "model_max_length")
    return limit if isinstance(limit, int) and limit > 0 else None


def _setting(name: str, file: str, key: str) -> Any:
    found = stored_json(name, file)
    if found is not None and not isinstance(found, dict):
        raise UserError(f"{file} of {name} is not the JSON object that sentence-transformers writes; remove it")
    return None if found is None else found.get(key)


def load_model(
    name: str,
    weights: bool,
    vocab: Vocabulary | None = None,
    setting: str = "encoder.name",
    kind: Literal["AutoModel", "AutoModelForCausalLM"] = "AutoModel",
) -> nn.Module:
    """The model `name` with an embedding for `vocab`. Raises UserError naming `setting` and fixes.

    `kind` is the class of transformers that chooses its class: an encoder without heads, or a decoder with its head.
    """
    folder = Path(name).expanduser()
    if not os.path.isdir(folder):
        _require_repository(name, setting)
    import transformers

    automatic = getattr(transformers, kind)
    location = str(folder) if os.path.isdir(folder) else name
    try:
        with hub.reaching(), quiet_transformers():
            if weights:
                model, loaded = automatic.from_pretrained(
                    location, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
                )
                _require_all(model, loaded["missing_keys"], f"{setting}={name!r}")
                return with_fast_attention(_grown(model, vocab))
            config = transformers.AutoConfig.from_pretrained(location, trust_remote_code=False)
            if vocab is not None:
                config.vocab_size, config.pad_token_id = vocab
            return with_fast_attention(automatic.from_config(config, dtype=torch.float32))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise UserError(f"{setting}={name!r} cannot be loaded ({reason}); {_ways_on(setting)}") from error


def _require_repository(name: str, setting: str) -> None:
    """Raises UserError, before anything heavy is imported, if `name` is no folder and cannot be had from the hub."""
    if not hub.is_repository(name):
        raise UserError(f"{setting}={name!r} cannot be loaded (no such folder); {_ways_on(setting)}")
    if hub.absence() is not None and not hub.has_model(name):
        raise UserError(f"{setting}={name!r} cannot be loaded: {hub.failure(OSError(), 'model')}; {_ways_on(setting)}")


def _ways_on(setting: str) -> str:
    return (
        f"give a local folder with config.json and model.safetensors, a hub id that can be reached (HF_ENDPOINT names "
        f"a mirror), or leave {setting} empty for a network of OpenJEPA's own"
    )


def _require_all(model: nn.Module, missing: Iterable[str], what: str) -> None:
    """Raises UserError if the weights lack tensors that latents depend on: these would silently be random."""
    known = dict(model.named_parameters())
    unused = {id(parameter) for parameter in unused_parameters(model)}
    needed = sorted(name for name in missing if name in known and id(known[name]) not in unused)
    if needed:
        raise UserError(
            f"{what} cannot be loaded: its weights lack {len(needed)} of {len(known)} tensors of a "
            f"{type(model).__name__} (first: {needed[0]}); give weights that belong to its config.json, or set "
            "weights=false next to it"
        )


def _grown(model: Any, vocab: Vocabulary | None) -> Any:
    """The model with an embedding for all of `vocab`: special tokens that it lacked get random vectors."""
    if vocab is not None and vocab.size > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(vocab.size, mean_resizing=False)
    return model


def with_fast_attention(model: Any) -> nn.Module:
    """The same transformers model with `attention` in place of "sdpa"; models on any other attention keep it."""
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        from transformers import AttentionInterface, AttentionMaskInterface

        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, AttentionMaskInterface()["sdpa"])  # boolean, None if all may attend
        model.set_attn_implementation(ATTENTION)
    return model


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query, key, value [B, H, T, D/H] -> ([B, T, H, D/H], no weights).

    What `attend` cannot express (causal without a mask, grouped heads, a bias, another scale) stays with "sdpa".
    """
    causal = others.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal  # as transformers' own functions read it
    plain_mask = not causal if attention_mask is None else attention_mask.dtype == torch.bool
    plain_scale = scaling is None or math.isclose(scaling, query.shape[-1] ** -0.5)
    plain_heads = query.shape[1] == key.shape[1]
    if not (plain_mask and plain_scale and plain_heads) or any(others.get(name) is not None for name in BEYOND_ATTEND):
        from transformers import AttentionInterface

        sdpa = AttentionInterface()["sdpa"]
        return sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others)
    return attend(query, key, value, attention_mask, dropout).transpose(1, 2).contiguous(), None


def attention_mask(config: Any, may_read: Tensor) -> Tensor:
    """may_read [B, 1, T, T] (or broadcastable) in the model's format: boolean, else added to scores."""
    if config._attn_implementation in ("sdpa", ATTENTION):
        return may_read
    return torch.zeros(may_read.shape, device=may_read.device).masked_fill(~may_read, torch.finfo(torch.float32).min)


def first_position(model: Any) -> int:
    """The model's position of a text's first token: 0, or the padding id + 1 in RoBERTa's family."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    return table.padding_idx + 1 if isinstance(table, nn.Embedding) and table.padding_idx is not None else 0


def unused_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that token latents do not depend on (BERT's pooler): they would never get a gradient."""
    pooler = getattr(model, "pooler", None)
    return list(pooler.parameters()) if isinstance(pooler, nn.Module) else []
