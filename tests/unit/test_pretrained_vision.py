"""A ViT of the transformers library behind our interface, tiny and made on the spot: no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from openjepa.core.errors import ConfigError, UserError
from openjepa.core.experiment import BuildContext
from openjepa.core.seeding import generator_for
from openjepa.models.pretrained_vision import PretrainedViT
from openjepa.models.transformer import gather_positions
from openjepa.models.vision import VisionConfig, build_vision

PIXELS, B = 24, 3
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
         "image_size": PIXELS, "patch_size": 8}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("vit")
    ViTModel(ViTConfig(**SIZES)).save_pretrained(made)
    return made


@pytest.fixture
def images() -> Tensor:
    return torch.rand(B, 3, PIXELS, PIXELS, generator=generator_for(0, "images")) * 2 - 1


def vit(folder: Path) -> PretrainedViT:
    return PretrainedViT(str(folder), PIXELS).eval()


def test_all_patches_are_what_transformers_says_of_them(folder: Path, images: Tensor) -> None:
    from transformers import ViTModel

    ours, theirs = vit(folder), ViTModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(images, output_hidden_states=True)
        states = ours.states(images)
    assert (ours.dim, ours.grid, ours.max_len, len(states)) == (16, (3, 3), 9, 3)
    assert torch.allclose(states[-1], expected.last_hidden_state[:, 1:], atol=1e-5)
    assert torch.allclose(states[1], expected.hidden_states[1][:, 1:], atol=1e-5)


def test_latents_depend_on_nothing_that_is_not_read(folder: Path, images: Tensor) -> None:
    positions, model = torch.tensor([[0, 4], [2, 7], [8, 1]]), vit(folder)
    with torch.no_grad():
        seen = model(images, positions)
        hidden = torch.ones(B, 9, dtype=torch.bool).scatter(1, positions, False).view(B, 1, 3, 3)
        other = torch.where(hidden.repeat_interleave(8, 2).repeat_interleave(8, 3), torch.zeros(()), images)
        assert torch.equal(seen, model(other, positions))
        assert not torch.allclose(seen, gather_positions(model(images), positions), atol=1e-3)


def test_padding_is_not_read(folder: Path, images: Tensor) -> None:
    model = vit(folder)
    positions = torch.tensor([[0, 4, 5], [2, 7, 0], [8, 0, 0]])
    valid = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    with torch.no_grad():
        together = model(images, positions, valid)
        for row, count in enumerate((3, 2, 1)):
            alone = model(images[row : row + 1], positions[row : row + 1, :count])
            assert torch.allclose(together[row : row + 1, :count], alone, atol=1e-5)


def test_pixels_are_normed_as_the_model_was_trained(folder: Path, images: Tensor, tmp_path: Path) -> None:
    other = tmp_path / "vit"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    (other / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        expected = vit(folder)((images * 0.5 + 0.5 - shift) / scale)
        assert torch.allclose(vit(other)(images), expected, atol=1e-5)


def test_the_architecture_is_kept_for_later(folder: Path, tmp_path: Path) -> None:
    config = VisionConfig(name=str(folder))
    first = build_vision(config, PIXELS, BuildContext(tmp_path))
    torch.manual_seed(1)
    again = build_vision(config.model_copy(update={"name": "gone/away"}), PIXELS, BuildContext(tmp_path, True))
    assert first.state_dict().keys() == again.state_dict().keys()
    assert not torch.equal(*(model.state_dict()["model.embeddings.cls_token"] for model in (first, again)))


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import BertConfig

    with pytest.raises(ConfigError, match=r"data\.size=24"):
        PretrainedViT(str(folder), 48)
    BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="is a 'bert'"):
        PretrainedViT(str(tmp_path), PIXELS, weights=False)
