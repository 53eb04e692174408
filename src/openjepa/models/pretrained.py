"""Any `transformers` text encoder, by hub id or local folder, behind the interface of `TextEncoder`.

The only file that imports transformers models. Encoders that take `position_ids` can read visible tokens only, at their
true places; DistilBERT has no such argument, so its word embeddings get the difference of the position embeddings added,
which its own layer then completes to the true position.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.core.errors import UserError


class PretrainedEncoder(nn.Module):
    """Wraps a transformers encoder. `name` is a hub id or a folder; `weights=False` builds it from its config alone."""

    def __init__(self, name: str, weights: bool = True, max_len: int | None = None) -> None:
        super().__init__()
        self.model = load_model(name, weights)
        config = self.model.config
        self.dim: int = config.hidden_size if hasattr(config, "hidden_size") else config.dim
        self.max_len: int = min(max_len or config.max_position_embeddings, config.max_position_embeddings)
        self.takes_places = "position_ids" in inspect.signature(self.model.forward).parameters
        for parameter in unused_parameters(self.model):
            parameter.requires_grad_(False)

    def states(self, ids: Tensor, valid: Tensor, places: Tensor | None = None) -> list[Tensor]:
        """ids, valid, places [B, T] -> the latents of every layer, each [B, T, D]."""
        inputs: dict[str, Any] = {"attention_mask": valid.long(), "output_hidden_states": True}
        if places is None:
            inputs["input_ids"] = ids
        elif self.takes_places:
            inputs |= {"input_ids": ids, "position_ids": places}
        else:
            inputs["inputs_embeds"] = self._moved_embeddings(ids, places)
        return list(self.model(**inputs).hidden_states[1:])

    def forward(self, ids: Tensor, valid: Tensor, places: Tensor | None = None) -> Tensor:
        """The last layer's latents [B, T, D]."""
        return self.states(ids, valid, places)[-1]

    def _moved_embeddings(self, ids: Tensor, places: Tensor) -> Tensor:
        table = self.model.embeddings
        natural = torch.arange(ids.shape[1], device=ids.device)  # [T]
        return table.word_embeddings(ids) + table.position_embeddings(places) - table.position_embeddings(natural)

    def save_config(self, folder: Path) -> None:
        """Write config.json, from which the architecture can be rebuilt without the hub."""
        self.model.config.save_pretrained(folder)


def load_model(name: str, weights: bool) -> nn.Module:
    """The bare encoder behind `name`. Raises UserError naming the ways on if it cannot be had."""
    from transformers import AutoConfig, AutoModel

    try:
        if weights:
            return AutoModel.from_pretrained(name, dtype=torch.float32)
        return AutoModel.from_config(AutoConfig.from_pretrained(name), dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"encoder.name={name!r} cannot be loaded ({reason}); give a local folder with config.json and "
            "model.safetensors, a hub id that can be reached, or leave encoder.name empty for OpenJEPA's own encoder"
        ) from error


def unused_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of heads that token latents do not pass through (BERT's pooler): they would never get a gradient."""
    pooler = getattr(model, "pooler", None)
    return list(pooler.parameters()) if isinstance(pooler, nn.Module) else []
