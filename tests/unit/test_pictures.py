"""What rows look like: tokens put side by side give the text again, pixels are those of the image."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from openjepa.data.images.batches import to_float
from openjepa.data.pictures import image_pictures, text_pictures
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer

TEXTS = ["the unhurried tailor, at 12 o'clock, sewed: (blue) cloth!", "a cat's cradle; caf\u00e9 au lait"] * 5


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_pieces_of_a_text_side_by_side_are_the_text(kind: Literal["wordpiece", "bpe"]) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=300, lowercase=True), TEXTS)
    ids = tokenizer.encode([TEXTS[0]])[0]
    (picture,) = text_pictures(tokenizer, SimpleNamespace(ids=torch.tensor(ids)[None]))
    assert len(picture.texts) == len(ids)
    assert "".join(picture.texts).replace(" ", "") == TEXTS[0].replace(" ", "")
    assert " tailor" in "".join(picture.texts)


def test_special_tokens_are_shown_by_name() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=300), TEXTS)
    (picture,) = text_pictures(tokenizer, SimpleNamespace(ids=torch.tensor([[tokenizer.mask_id, tokenizer.sep_id]])))
    assert picture.texts == [" [MASK]", " [SEP]"]


def test_images_come_back_as_they_were() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    found = image_pictures(SimpleNamespace(images=to_float(images), grid=(4, 4)))
    assert all(np.array_equal(picture.pixels, image) for picture, image in zip(found, images, strict=True))
    assert found[0].grid == (4, 4)
