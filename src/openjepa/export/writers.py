"""One writer for each format: from a run to the files that the other library opens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from openjepa.export import onnx
from openjepa.export.source import Source
from openjepa.export.tokenizer import fast_tokenizer
from openjepa.export.twins import stock_model
from openjepa.models.pretrained_vision import OUR_MEAN, OUR_STD, PretrainedViT
from openjepa.models.quiet import quiet_transformers
from openjepa.models.sentence_head import SentenceHead, UnitLength

POOLING_NAMES = {"mean": "mean", "last": "lasttoken", "cls": "cls", "max": "max"}  # as sentence-transformers calls them


def write_transformers(source: Source, folder: Path) -> None:
    """A stock model with its tokenizer or image processor."""
    with quiet_transformers():
        if source.reads_texts:
            pad_id = source.tokenizer.pad_id
            stock_model(source.network, pad_id, source.embedding.causal).save_pretrained(folder)
            fast_tokenizer(source).save_pretrained(folder)
        else:
            stock_model(source.network).save_pretrained(folder)
            _image_processor(source).save_pretrained(folder)


def write_sentence_transformers(source: Source, folder: Path) -> None:
    """The stock model, its pooling, linear maps and unit length as modules, and the prompts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    plain = folder / "plain"
    plain.mkdir()
    write_transformers(source, plain)
    limit = {"max_seq_length": source.max_row} if source.reads_texts else {}
    with quiet_transformers(), onnx.quiet_export():
        transformer = Transformer(str(plain), **limit)
        pooling: Any = POOLING_NAMES[source.embedding.pooling]
        modules: list[Any] = [transformer, Pooling(source.encoder.dim, pooling)]
        head = source.head
        if head is not None:
            modules += [_module(step) for step in head.steps]
            modules += [] if head.queries is None else [_router(head)]
        elif source.embedding.normalization == "unit":
            modules.append(Normalize())
        prompts: Any = {} if head is None else {"prompts": head.prompts, "default_prompt_name": head.default_prompt}
        model = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="cosine", **prompts)
        model.save_pretrained(str(folder), create_model_card=False)
    shutil.rmtree(plain)


def _module(step: nn.Module) -> Any:
    """A step behind the pooling as that library's module."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    if isinstance(step, UnitLength):
        return Normalize()
    assert isinstance(step, nn.Sequential)
    linear, activation = step
    assert isinstance(linear, nn.Linear)
    return Dense(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        activation,
        init_weight=linear.weight.detach(),
        init_bias=None if linear.bias is None else linear.bias.detach(),
    )


def _router(head: SentenceHead) -> Any:
    """The map of queries; documents, and texts of which nothing is said, pass."""
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Normalize

    assert head.queries is not None
    queries = _module(nn.Sequential(head.queries, nn.Identity()))
    return Router.for_query_document([queries, Normalize()], [Normalize()], default_route="document")


def write_onnx(source: Source, folder: Path) -> None:
    """One graph, and the tokenizer of texts."""
    onnx.write_onnx(source, folder / onnx.MODEL)
    if source.reads_texts:
        with quiet_transformers():
            fast_tokenizer(source).save_pretrained(folder)


def _image_processor(source: Source) -> Any:
    """Square images to pixels as the run reads them, by Pillow."""
    from transformers import SiglipImageProcessor, ViTImageProcessor

    side = source.images.pixels
    mean, std = statistics(source)
    made = ViTImageProcessor if source.skips_cls else SiglipImageProcessor
    return made(size={"height": side, "width": side}, resample=3, image_mean=mean, image_std=std)


def statistics(source: Source) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, of values in [0, 1], that the encoder's images are normed by."""
    network = source.network
    if isinstance(network, PretrainedViT):
        return network.mean.flatten().tolist(), network.std.flatten().tolist()
    return [*OUR_MEAN], [*OUR_STD]
