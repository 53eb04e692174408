"""Description of the embedding: its encoder, what that reads, and how its latents are pooled.

`Method.embed` computes the vector. This description gives the same in a form that tools can use, to compare layers and
to export models. Where a vector is a pooled state of an encoder, the two agree bit for bit (tested for every recipe);
where it is a prediction, `pooling` is "predicted" and `note` describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from openjepa.core.batch import Batch

# mean, last, first ([CLS]) or largest of the last states at real positions; predicted = the predictor makes the vector
Pooling = Literal["mean", "last", "cls", "max", "predicted"]
Normalization = Literal["none", "unit"]  # unit = divided by its length


class EncoderInputs(NamedTuple):
    """What an encoder is called with for one batch."""

    arguments: tuple[Tensor, ...]  # positional, such as ids and valid, or images
    valid: Tensor | None = None  # [B, T] bool, which positions are pooled; None = all


@runtime_checkable
class Tokenized(Protocol):
    """Inputs that are read through a tokenizer."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        ...


@dataclass(frozen=True)
class Embedding:
    """How inputs of a user become vectors. Only `inputs` is needed to embed; the rest describes the vectors."""

    inputs: Callable[[Sequence[Any]], Batch]  # texts or images -> batch with nothing hidden (e.g. `TextInputs`)
    # what encoders of this modality read of such a batch; None = unknown: layers cannot be compared
    encoder_inputs: Callable[[Any], EncoderInputs] | None = None
    encoder: str = "student"  # by its name in `Method.encoders`
    pooling: Pooling = "mean"
    maps: Callable[[Tensor], Tensor] | None = None  # [B, D] -> [B, E] behind the pooling; None = none
    normalization: Normalization = "none"
    causal: bool = False  # whether each position reads only itself and those before it
    note: str = ""  # what probes read, if the other fields do not tell; shown with the table of an evaluation

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that texts are read with; None for images."""
        return self.inputs.tokenizer if isinstance(self.inputs, Tokenized) else None

    @property
    def words(self) -> str:
        """What probes read, in words."""
        if self.note:
            return self.note
        which = {
            "mean": "the mean of the {}'s last-layer latents",
            "last": "the {}'s last-layer latent of the last token",
            "cls": "the {}'s last-layer latent of the first token",
            "max": "the largest value in each dimension of the {}'s last-layer latents",
            "predicted": "the predictor's output on the {}'s latents",
        }
        length = ", divided by its length" if self.normalization == "unit" else ""
        return which[self.pooling].format(self.encoder) + length
