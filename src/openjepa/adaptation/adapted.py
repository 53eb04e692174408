"""A pretrained sentence encoder with linear maps behind it that `openjepa adapt` has fitted to documents.

Nothing here is trained by gradients: `openjepa adapt` computes the maps and writes the run. As a recipe it makes that
run open like any other; its initialisation is the encoder as it was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.adaptation.documents import PartRule
from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.encoder import Encoder
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Method, StepOutput
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig
from openjepa.data.text.views import TextViews, TextViewsCollator
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import text_experiment, tokenizer_for
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.sentence_head import SentenceHead, UnitLength


class Config(BaseConfig):
    """The encoder, the documents, and which maps stand behind the encoder."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    encoder: EncoderConfig = EncoderConfig()
    title: str | None = None
    """column of titles: a title is a part of its document, and stands before its text; unset = there are none"""
    parts: PartRule = "sentences"
    """what the parts of a document are: sentences, or paragraphs (what blank lines divide)"""
    whitening: bool = False
    """whether latents are whitened within documents"""
    query_map: bool = False
    """whether queries are moved to the document that is predicted from them"""
    train: TrainConfig = TrainConfig(steps=1)


class Adapted(Method[TextViews]):
    """A frozen encoder and its maps."""

    def __init__(self, config: Config, vocab: Vocabulary, context: BuildContext) -> None:
        super().__init__()
        self.student = build_encoder(config.encoder, vocab, context)
        head = getattr(self.student, "head", None) or SentenceHead()
        self.student.head = with_maps(head, self.student.dim, config.whitening, config.query_map)

    @property
    def head(self) -> SentenceHead:
        """Pooling and maps."""
        head = self.student.head
        assert isinstance(head, SentenceHead)
        return head

    def forward(self, batch: TextViews) -> StepOutput:
        raise UserError("an adapted encoder is not trained further; openjepa adapt makes it, from any encoder")

    def predict_from_context(self, batch: TextViews) -> Tensor:
        return self.embed(batch)

    def embed(self, batch: TextViews) -> Tensor:
        return self.head(self.student(batch.ids, batch.valid), batch.valid)

    def as_queries(self, vectors: Tensor) -> Tensor:
        return self.head.as_queries(vectors)

    def encoders(self) -> dict[str, Encoder]:
        return {"student": self.student}


def with_maps(head: SentenceHead, dim: int, whitening: bool, query_map: bool) -> SentenceHead:
    """`head` with room for the maps, which change nothing yet. Vectors then have unit length."""
    if head.queries is not None:
        raise UserError("this encoder maps queries already: adapt the one that it was made from")
    if not whitening and not query_map:
        return head
    widths = [module.out_features for module in head.maps if isinstance(module, nn.Linear)]
    width = widths[-1] if widths else dim
    maps = [*head.maps]
    if whitening:
        maps += [UnitLength(), identity(width), nn.Identity()]
    queries = identity(width, bias=False) if query_map else None
    return SentenceHead(head.pooling, maps, "unit", queries, head.prompts, head.default_prompt)


def identity(dim: int, bias: bool = True) -> nn.Linear:
    """A linear map that changes nothing."""
    linear = nn.Linear(dim, dim, bias=bias)
    nn.init.eye_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def set_whitening(head: SentenceHead, mean: Tensor, matrix: Tensor) -> None:
    """Make the last linear map z = (x - mean) matrix."""
    linear = [module for module in head.maps if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        linear.weight.copy_(matrix.T)
        linear.bias.copy_(-mean @ matrix)


def set_query_map(head: SentenceHead, matrix: Tensor) -> None:
    """Make the map of queries q matrix."""
    assert head.queries is not None
    with torch.no_grad():
        head.queries.weight.copy_(matrix.T)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes."""
    tokenizer = tokenizer_for(config, config.encoder.named_in("encoder"), context)
    method = Adapted(config, tokenizer.vocabulary, context)
    max_len = method.student.max_len
    collate = TextViewsCollator(tokenizer)
    return text_experiment(
        method,
        config,
        rows=TextRows(tokenizer, max_len),
        collate=collate,
        inputs=collate.inputs(max_len),
    )
