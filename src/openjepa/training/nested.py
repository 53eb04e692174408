"""Matryoshka training: the first dimensions of an embedding are made to suffice by themselves.

Nested dropout (Rippel et al. 2014), with the sizes of Matryoshka representations (Kusupati et al. 2022): at each step a
size k is drawn, and all but the first k dimensions of the encoder's latents are zero, so that the predictor and the
regularisers have to do with those. It costs nothing. Measurements and embeddings read all dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.experiment import Experiment
from openjepa.core.seeding import generator_for

Draw = Callable[[int], None]  # of the size for a step, by the step's number


@contextmanager
def nested_dimensions(experiment: Experiment) -> Generator[Draw]:
    """While the block runs, the embedding's encoder keeps as many dimensions in a training step as the draw says.

    This holds for its last layer, by `forward` as by `states`.

    Without `train.matryoshka` nothing is changed. Raises UserError if the embedding is not the pooled output of an
    encoder, is frozen, or has fewer dimensions than are to be kept.
    """
    sizes = experiment.train.matryoshka
    if not sizes:
        yield lambda step: None
        return
    encoder = _encoder_of(experiment)
    choices = [*sizes, encoder.dim]
    kept = encoder.dim

    def draw(step: int) -> None:
        nonlocal kept
        generator = generator_for(experiment.train.seed, "matryoshka", step)
        kept = choices[int(torch.randint(len(choices), (), generator=generator))]

    all_states = encoder.states

    def cut(module: nn.Module, inputs: Any, latents: Tensor) -> Tensor:
        if not module.training or kept == encoder.dim:
            return latents
        return torch.cat([latents[..., :kept], torch.zeros_like(latents[..., kept:])], dim=-1)  # [B, T, D]

    def cut_states(*inputs: Any, **options: Any) -> list[Tensor]:
        *lower, last = all_states(*inputs, **options)
        return [*lower, cut(encoder, inputs, last)]

    hook = encoder.register_forward_hook(cut)
    encoder.states = cut_states  # no hook sees a call of `states`
    try:
        yield draw
    finally:
        del encoder.states
        hook.remove()


def _encoder_of(experiment: Experiment) -> Any:
    """The encoder whose pooled latents are the embedding."""
    embedding = experiment.embedding
    sizes = experiment.train.matryoshka
    encoder: Any = experiment.method.encoders().get(embedding.encoder)
    if embedding.pooling == "predicted" or embedding.maps is not None or encoder is None:
        raise UserError(
            f"train.matryoshka={list(sizes)} needs an embedding that is the pooled output of an encoder; here it is "
            f"{embedding.words}: leave it out, and cut afterwards with embed --dims"
        )
    if max(sizes) >= encoder.dim:
        raise UserError(
            f"train.matryoshka={list(sizes)}: the embedding has {encoder.dim} dimensions; give smaller sizes"
        )
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise UserError(
            f"train.matryoshka={list(sizes)}: the encoder of the embedding is frozen, so that nothing learns to do "
            "with fewer dimensions: leave it out, and cut afterwards with embed --dims"
        )
    return encoder
