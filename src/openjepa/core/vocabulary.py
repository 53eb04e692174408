"""What tokenizers and networks share: the vocabulary, and the name of the encoder."""

from __future__ import annotations

from typing import NamedTuple


class Vocabulary(NamedTuple):
    """The ids of a tokenizer: from 0 to `size` - 1; `pad_id` stands for no text."""

    size: int
    pad_id: int


class NamedEncoder(NamedTuple):
    """The encoder that a tokenizer must match: an external one, or OpenJEPA's own, which takes any."""

    name: str | None = None  # hub id or folder; None = OpenJEPA's own
    weights: bool = False  # whether it starts from pretrained weights
    section: str = "encoder"  # of the configuration

    @property
    def setting(self) -> str:
        """The setting that names it, for messages."""
        return f"{self.section}.name"


OWN_ENCODER = NamedEncoder()
