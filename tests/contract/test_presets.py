"""Every shipped preset that asks for bf16 trains in bf16 on the CPU, and its loss is nearly that of fp32.

A preset's own settings stay, but for sizes, batches and data: networks are tiny, pretrained ones are made here, and
data of the hub are replaced by the recipe's synthetic world.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openjepa.core.configure import configure
from openjepa.core.experiment import BuildContext
from openjepa.core.locate import built_in_recipes, presets
from openjepa.core.rundir import RunDir
from openjepa.core.seeding import seed_global
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.data.worlds.scenes import Scenes
from openjepa.data.worlds.stories import Stories
from openjepa.training.loop import fit, make_fabric
from tests.tiny import EVERY_RECIPE, without

IN_BF16 = [
    (recipe, preset)
    for recipe in built_in_recipes()
    for preset in presets(recipe)
    if configure(recipe, preset)[1].train.precision == "bf16-mixed"
]
CLOSE = 0.02  # of the loss in fp32


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT and a tiny GPT-2 with their vocabulary, and a tiny ViT."""
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("pretrained")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    ViTModel(ViTConfig(**sizes, image_size=24, patch_size=4)).save_pretrained(folder / "vit")
    BertModel(BertConfig(**sizes, vocab_size=400, max_position_embeddings=256)).save_pretrained(folder / "bert")
    marks = {"bos_token_id": 0, "eos_token_id": 0}
    gpt2 = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128, vocab_size=400, **marks)
    GPT2LMHeadModel(gpt2).save_pretrained(folder / "gpt2")
    texts = [Stories("train", 200)[i].text for i in range(200)]
    texts += [caption for i in range(100) for caption in Scenes("train", 100).captions(i)]
    for name in ("bert", "gpt2"):
        train_tokenizer(TokenizerConfig(vocab_size=400), texts).save(folder / name / "tokenizer.json")
    return folder


def tiny_settings(recipe: str, preset: str, pretrained: Path) -> list[str]:
    """What makes the preset tiny and keeps it off the hub; its precision stays."""
    module, shipped = configure(recipe, preset)
    settings = without(EVERY_RECIPE[Path(recipe).name][1], "train.precision")
    if getattr(getattr(shipped, "encoder", None), "name", None):
        vision = "text_encoder" in type(shipped).model_fields
        settings = (*without(settings, "encoder.", "tokenizer."), f"encoder.name={pretrained / 'bert'}")
        if vision:
            settings = (*without(settings, "text_encoder.", "encoder.name"), f"encoder.name={pretrained / 'vit'}",
                        f"text_encoder.name={pretrained / 'bert'}", "text_encoder.max_len=24")  # fmt: skip
    elif getattr(getattr(shipped, "decoder", None), "name", None):
        sizes = ("decoder.max_len=96", f"decoder.name={pretrained / 'gpt2'}")
        settings = (*without(settings, "decoder.", "tokenizer."), *sizes)
    elif getattr(getattr(shipped, "tokenizer", None), "kind", None):
        settings = (*settings, "tokenizer.kind=null")
    world = module.Config().data.source
    if shipped.data.source != world:
        settings = (*settings, f"data.source={world}")
        settings += tuple(f"data.{key}=null" for key in ("column", "label") if hasattr(shipped.data, key))
    return [*settings, "train.steps=1", "train.warmup_steps=1", "train.log_every=1", "train.checkpoint_every=0"]


def first_loss(recipe: str, preset: str, settings: list[str], folder: Path) -> float:
    """Loss of the first step, before which both precisions have the same weights, batches and masks."""
    module, config = configure(recipe, preset, overrides=settings)
    seed_global(config.train.seed, "init")
    experiment = module.build(config, BuildContext(folder / "assets"))
    losses: list[float] = []
    hooks = [lambda progress, output, stats: losses.append(stats["loss"])]
    fit(make_fabric(config.train), replace(experiment, train=config.train), RunDir(folder), hooks)
    assert len(losses) == 1
    assert all(parameter.isfinite().all() for parameter in experiment.method.parameters())
    return losses[0]


def test_some_presets_are_in_bf16() -> None:
    assert len(IN_BF16) > 15
    assert {recipe for recipe, _ in IN_BF16} == set(built_in_recipes())


@pytest.mark.parametrize(("recipe", "preset"), IN_BF16)
def test_a_preset_trains_in_bf16_as_in_fp32(recipe: str, preset: str, pretrained: Path, tmp_path: Path) -> None:
    settings = tiny_settings(recipe, preset, pretrained)
    found = first_loss(recipe, preset, settings, tmp_path / "bf16")
    exact = first_loss(recipe, preset, [*settings, "train.precision=32-true"], tmp_path / "fp32")
    assert math.isfinite(found)
    assert found != exact  # else bf16 was not used
    assert found == pytest.approx(exact, rel=CLOSE)
