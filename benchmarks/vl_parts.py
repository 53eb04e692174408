"""What the benchmarks of VL-JEPA share: encoders of transformers as folders with a config and no weights."""

from __future__ import annotations

from pathlib import Path

from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.data.worlds.scenes import Scenes

PATCH = 16  # pixels
SCENES = 200  # whose captions the vocabulary is from


def make_encoders(folder: Path, layers: int, dim: int, heads: int, vocab: int, pixels: int) -> list[str]:
    """Settings that name a ViT and a BERT of this size, both untrained, and the BERT's tokenizer."""
    from transformers import BertConfig, ViTConfig

    sizes = {
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * dim,
    }
    ViTConfig(**sizes, image_size=pixels, patch_size=PATCH).save_pretrained(folder / "vit")
    BertConfig(**sizes, vocab_size=vocab).save_pretrained(folder / "bert")
    world = Scenes("train", SCENES)
    texts = [text for index in range(SCENES) for text in world.captions(index)]
    train_tokenizer(TokenizerConfig(vocab_size=min(vocab, 1000)), texts).save(folder / "bert" / "tokenizer.json")
    return [
        f"encoder.name={folder / 'vit'}",
        "encoder.weights=false",
        f"text_encoder.name={folder / 'bert'}",
        "text_encoder.weights=false",
        f"data.size={pixels}",
    ]
