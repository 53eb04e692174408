"""A ViT of the `transformers` library, by hub id or local folder, behind the interface of `ViT`.

Patches are embedded with their positions and hidden ones are removed before the layers, so they cost nothing and cannot
leak. The [CLS] token is always read and never returned.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.core import hub
from openjepa.core.atomic import replaced_folder
from openjepa.core.encoder import Modality
from openjepa.core.errors import ConfigError, UserError
from openjepa.models.pretrained import attention_mask, load_model, save_model, unused_parameters
from openjepa.models.quiet import quiet_transformers
from openjepa.models.transformer import gather_positions, key_mask

# images come in [-1, 1]
OUR_MEAN = (0.5, 0.5, 0.5)
OUR_STD = (0.5, 0.5, 0.5)


class PretrainedViT(nn.Module):
    """A transformers ViT. `name` is a hub id or a folder; `weights=False` builds it only from its config.

    Raises UserError for a model of another family, ConfigError if it was made for images of another size.
    """

    modality: Modality = "image"
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pixels: int, weights: bool = True) -> None:
        super().__init__()
        self.model: Any = load_model(name, weights)
        config = self.model.config
        if config.model_type != "vit":
            raise UserError(f"encoder.name={name!r} is a {config.model_type!r}; vision encoders of type 'vit' are read")
        if config.image_size != pixels:
            raise ConfigError(f"{name} was made for {config.image_size} pixels; set data.size={config.image_size}")
        side = config.image_size // config.patch_size
        self.dim = int(config.hidden_size)
        self.grid = (side, side)
        self.max_len = side * side
        mean, std = pixel_statistics(name)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        for parameter in unused_parameters(self.model):
            parameter.requires_grad_(False)

    def states(self, images: Tensor, positions: Tensor | None = None, valid: Tensor | None = None) -> list[Tensor]:
        """Embeddings and the latents of every layer, the last one normed, each [B, V, D]; arguments as `ViT.states`."""
        states = list(self._layer_by_layer(images, positions, valid))
        states[-1] = self.model.layernorm(states[-1])
        return [state[:, 1:] for state in states]

    def forward(self, images: Tensor, positions: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """The last layer's latents [B, V, D]; no other layer's are kept."""
        (last,) = deque(self._layer_by_layer(images, positions, valid), maxlen=1)
        return self.model.layernorm(last)[:, 1:]

    def _layer_by_layer(self, images: Tensor, positions: Tensor | None, valid: Tensor | None) -> Iterator[Tensor]:
        """Embeddings, then the latents of every layer, with [CLS] and not normed: each [B, 1 + V, D]."""
        table = self.model.embeddings
        pixels = (images * 0.5 + 0.5 - self.mean) / self.std
        x = table.patch_embeddings(pixels) + table.position_embeddings[:, 1:]  # [B, N, D]
        x = x if positions is None else gather_positions(x, positions)  # [B, V, D]
        first = (table.cls_token + table.position_embeddings[:, :1]).expand(len(x), -1, -1)
        x = table.dropout(torch.cat([first, x], 1))  # [B, 1 + V, D]
        mask = None
        if valid is not None:
            mask = attention_mask(self.model.config, key_mask(torch.cat([torch.ones_like(valid[:, :1]), valid], 1)))
        yield x
        for layer in self.model.layers:
            x = layer(x, mask)
            yield x

    def keep(self, folder: Path, weights: bool) -> None:
        """Save all that the model can be rebuilt from without the hub: config, pixel statistics, weights if wanted."""
        mean = self.mean.flatten().tolist()
        std = self.std.flatten().tolist()
        with replaced_folder(folder) as inside:
            save_model(self.model, inside, weights)
            statistics = json.dumps({"image_mean": mean, "image_std": std})
            (inside / "preprocessor_config.json").write_text(statistics, encoding="utf-8")


def pixel_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel by which the model normalises images; ours where it has none."""
    from transformers.image_processing_utils import BaseImageProcessor

    try:
        with hub.reaching(), quiet_transformers():
            settings, _ = BaseImageProcessor.get_image_processor_dict(str(Path(name).expanduser()))
    except (OSError, ValueError):  # the model comes without one
        return OUR_MEAN, OUR_STD
    return tuple(settings.get("image_mean") or OUR_MEAN), tuple(settings.get("image_std") or OUR_STD)
