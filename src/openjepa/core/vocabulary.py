"""What tokenizers and networks need to know of each other."""

from __future__ import annotations

from typing import NamedTuple


class Vocabulary(NamedTuple):
    """What an embedding is made for: ids run from 0 to `size` - 1, and `pad_id` stands for no text."""

    size: int
    pad_id: int


class NamedEncoder(NamedTuple):
    """What a tokenizer has to fit: an encoder of somebody else, or OpenJEPA's own, which takes any."""

    name: str | None = None  # hub id or folder; None = OpenJEPA's own
    weights: bool = False  # whether it starts from pretrained weights
    section: str = "encoder"  # of the configuration

    @property
    def setting(self) -> str:
        """The setting that names it, for messages."""
        return f"{self.section}.name"


OWN_ENCODER = NamedEncoder()
