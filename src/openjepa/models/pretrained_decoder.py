"""Any decoder-only language model of `transformers`, by hub id or local folder, behind the interface of `Decoder`.

Rows come with a mask of their own ([B, T, T], see `masking.attention`) and with positions, so a family that takes no
`position_ids`, or that mixes positions by something else than attention, cannot be used and is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.atomic import replaced_folder
from openjepa.core.encoder import Modality
from openjepa.core.errors import UserError
from openjepa.core.vocabulary import Vocabulary
from openjepa.models.lora import LoraConfig, add_adapters
from openjepa.models.pretrained import ATTENTION, attention_mask, load_model, save_model
from openjepa.models.transformer import key_mask

MASKED = (ATTENTION, "sdpa", "eager")  # kinds of attention that take any mask
SCALED = ("logit_scale", "logits_scaling", "lm_head_multiplier")  # logits are not those of the head alone


class PretrainedDecoder(nn.Module):
    """A transformers decoder with its output head. `weights=False` builds it only from its config.

    Its embedding fits `vocab`: with weights it grows if needed, without them it has exactly that size. `max_len`
    (tokens) is at most the model's limit. `section` is where its name stands in the configuration, for messages.
    """

    modality: Modality = "text"

    def __init__(
        self, name: str, weights: bool, max_len: int, vocab: Vocabulary | None = None, section: str = "decoder"
    ) -> None:
        super().__init__()
        self.model: Any = load_model(name, weights, vocab, f"{section}.name", "AutoModelForCausalLM")
        self.config: Any = self.model.config.get_text_config()
        _require_masked(self.model, self.config, f"{section}.name={name!r}")
        self.dim: int = self.head.weight.shape[1]
        self.max_len: int = min(max_len, *_limits(self.config))
        self.softcap: float | None = getattr(self.config, "final_logit_softcapping", None)

    @property
    def head(self) -> Any:
        """The linear layer from latents to logits."""
        return self.model.get_output_embeddings()

    def adapt(self, config: LoraConfig, setting: str) -> None:
        """Freeze all weights and put LoRA adapters beside them."""
        add_adapters(self.model, config, setting)

    def states(self, ids: Tensor, valid: Tensor, positions: Tensor | None = None, skip_top: int = 0) -> list[Tensor]:
        """Embeddings and the latents of every layer, each [B, T, D]; arguments as for `TextEncoder.states`.

        The model computes all layers, also those that `skip_top` leaves out.
        """
        output = self._read(ids, valid, positions, all_layers=True)
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        return states[: max(1, len(states) - skip_top)]

    def forward(self, ids: Tensor, valid: Tensor, positions: Tensor | None = None) -> Tensor:
        """The last layer's latents [B, T, D], which the head reads."""
        return self._read(ids, valid, positions).last_hidden_state

    def log_probabilities(self, latents: Tensor, ids: Tensor) -> Tensor:
        """Latents [..., D] and the tokens that follow them [...] -> [...] log-probabilities of these, in nats."""
        logits = self.head(latents).float()  # [..., V]
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return -F.cross_entropy(logits.flatten(0, -2), ids.flatten(), reduction="none").view(ids.shape)

    def _read(self, ids: Tensor, valid: Tensor, positions: Tensor | None, all_layers: bool = False) -> Any:
        """The model's output without its head; whatever `valid` allows, no token reads one behind it."""
        time = torch.arange(ids.shape[1], device=ids.device)  # [T]
        past = time[:, None] >= time[None, :]  # [T, T]
        return self.model.base_model(
            input_ids=ids,
            attention_mask=attention_mask(self.config, (key_mask(valid) & past).expand(len(ids), -1, -1, -1)),
            position_ids=(time if positions is None else positions).expand_as(ids),
            use_cache=False,
            output_hidden_states=all_layers,
        )

    def keep(self, folder: Path, weights: bool) -> None:
        """Save all that the model can be rebuilt from without the hub: config and, with `weights`, weights."""
        with replaced_folder(folder) as inside:
            save_model(self.model, inside, weights)


def _limits(config: Any) -> Iterator[int]:
    """Tokens that the model has positions for, and those that all of its layers read at once."""
    for name in ("max_position_embeddings", "sliding_window"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and limit > 0:
            yield limit


def _require_masked(model: Any, config: Any, what: str) -> None:
    """Raises UserError for a model that cannot read question and answer apart in one row, or has other logits."""
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        problem = "takes no position_ids"
    elif config._attn_implementation not in MASKED:
        problem = f"its attention ({config._attn_implementation}) takes no mask"
    elif "linear_attention" in (getattr(config, "layer_types", None) or ()):
        problem = "has layers without a mask (linear attention)"
    elif found := [name for name in SCALED if getattr(config, name, None) not in (None, 1.0)]:
        problem = f"it scales its logits ({found[0]})"
    else:
        return
    raise UserError(
        f"{what} cannot be used: {type(model).__name__} {problem}; choose a decoder of another family, such as "
        "GPT-2, OPT, Llama, Qwen or Gemma"
    )
