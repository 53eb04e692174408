"""Training that needs more memory than there is ends in one line before its first step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from openjepa.core.experiment import Experiment, Sample, StreamedData
from openjepa.core.room import require_memory
from openjepa.core.seeding import generator_for

STATES = {"adamw": 2, "muon": 1, "lars": 1}  # numbers that an optimiser keeps of each weight


def require_room(experiment: Experiment, device: torch.device, world: int = 1) -> None:
    """Raises UserError if one step needs more memory than `device` still has.

    Counted are gradients, the optimiser's state and the inputs of all trained linear layers, which wait for the
    backward pass: a step takes more than that. Nothing is known of the batches of a stream, so these are not counted.
    """
    config = experiment.train
    trained = [p for p in experiment.method.parameters() if p.requires_grad]
    states = sum(p.numel() * p.element_size() for p in trained) * (1 + STATES.get(config.optimizer, 0))
    tokens = 0 if isinstance(experiment.train_data, StreamedData) else _tokens_of_a_batch(experiment, world)
    width = 2 if config.precision == "bf16-mixed" else 4  # bytes of a number
    activations = tokens * width * _inputs_of_a_token(experiment.method)
    settings = f"train.batch_size={config.batch_size}, train.batch_tokens={config.batch_tokens}"
    what = f"a step on a batch of {tokens:,} tokens ({settings})"
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    shared = 1 if device.type == "cuda" else world  # processes that share this memory
    require_memory((states + activations) * shared, what, "lower them; train.accumulate makes up for it", free)


def _inputs_of_a_token(method: nn.Module) -> int:
    layers = [layer for layer in method.modules() if isinstance(layer, nn.Linear) and layer.weight.requires_grad]
    return sum(layer.in_features for layer in layers)


def _tokens_of_a_batch(experiment: Experiment, world: int) -> int:
    """About how many tokens or patches a batch of one rank has."""
    data: Any = experiment.train_data
    rows = -(-min(experiment.train.batch_size, len(data)) // world)
    lengths = getattr(data, "lengths", None)  # optional part of the data set protocol
    if lengths is None:
        few = [Sample(data[i], generator_for(0, "room", i), i) for i in range(min(2, len(data)))]
        batch = experiment.collate(few)
        return rows * batch.tokens // max(1, batch.size)
    tokens = int(rows * float(np.mean(lengths))) if len(lengths) else 0
    limit = experiment.train.batch_tokens
    return min(tokens, limit // world) if limit else tokens
