"""ONNX: an encoder with its pooling as one graph, for any batch size and length."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.export.source import Source
from openjepa.export.twins import stock_model
from openjepa.models.pooling import StatePooling, pooled
from openjepa.models.sentence_head import SentenceHead

MODEL = "model.onnx"
MODEL_INT8 = "model_int8.onnx"
QUERIES = "query_embedding"  # where queries are mapped otherwise than documents
OUTPUT = "sentence_embedding"  # the name that sentence-transformers expects; "embedding" clashes in onnxruntime


class TextGraph(nn.Module):
    """Token ids and mask to vectors."""

    def __init__(self, model: nn.Module, head: SentenceHead) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """input_ids, attention_mask [B, T] int64 -> [B, D] float32; where queries are mapped, also theirs [B, D]."""
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [B, T, D]
        vectors = self.head(states, attention_mask.bool())
        return vectors if self.head.queries is None else (vectors, self.head.as_queries(vectors))


class ImageGraph(nn.Module):
    """Pixels to vectors."""

    def __init__(self, encoder: Any, pooling: StatePooling, unit_length: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.unit_length = unit_length

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values [B, 3, S, S] in [-1, 1] -> [B, D] float32."""
        vectors = pooled(self.encoder(pixel_values), None, self.pooling)
        return F.normalize(vectors, dim=1) if self.unit_length else vectors


def write_onnx(source: Source, file: Path) -> None:
    """Write the graph of `source` to `file`, checked by the onnx library."""
    import onnx

    pooling: Any = source.embedding.pooling
    unit_length = source.embedding.normalization == "unit"
    batch = torch.export.Dim("batch", min=1, max=4096)
    length = torch.export.Dim.DYNAMIC
    if source.reads_texts:
        model = stock_model(source.network, source.tokenizer.pad_id, source.embedding.causal)
        normalization = source.embedding.normalization
        graph: nn.Module = TextGraph(model, source.head or SentenceHead(pooling, normalization=normalization))
        row = source.row("one two three four five six")
        ids = torch.from_numpy(row).repeat(2, 1)  # [2, T]
        arguments: tuple[Tensor, ...] = (ids, torch.ones_like(ids))
        names = ["input_ids", "attention_mask"]
        shapes = [{0: batch, 1: length}, {0: batch, 1: length}]
    else:
        graph = ImageGraph(source.network, pooling, unit_length)
        side = source.images.pixels
        arguments = (torch.zeros(2, 3, side, side),)
        names = ["pixel_values"]
        shapes = [{0: batch}]
    with torch.no_grad(), quiet_export():
        program = torch.onnx.export(
            graph.eval(),
            arguments,
            input_names=names,
            output_names=[OUTPUT, *([QUERIES] if source.maps_queries else [])],
            dynamic_shapes=tuple(shapes),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        _forget_traces(program.model)
        program.save(str(file))
    onnx.checker.check_model(str(file))


def _forget_traces(model: Any) -> None:
    """Remove the lines of source that each node came from: they name folders of this machine."""
    graphs = [model.graph, *model.functions.values()]
    for node in (node for graph in graphs for node in graph.all_nodes()):
        node.metadata_props.clear()


def write_int8(file: Path, out: Path) -> None:
    """Write `file` with 8-bit weights; its vectors differ, and how far is measured."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_export():
        quantize_dynamic(str(file), str(out), weight_type=QuantType.QInt8, per_channel=True)


@contextlib.contextmanager
def quiet_export() -> Generator[None]:
    """Within the block, exporters print neither progress nor warnings; what fails still raises."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
