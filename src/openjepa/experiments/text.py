"""The usual experiment on texts: rows of documents, batches, the embedding of a text, and its tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Method
from openjepa.core.vocabulary import NamedEncoder
from openjepa.data.text.corpus import TokenizedCorpus
from openjepa.data.text.inputs import TextInputs, text_embedding
from openjepa.data.text.rows import RowMaker
from openjepa.data.text.sources import DataConfig
from openjepa.data.text.streaming import StreamedCorpus
from openjepa.data.tokenizers.choice import TextTokenizer, TokenizerConfig, load_or_train
from openjepa.models.sentence_head import SentenceHead
from openjepa.tasks.texts import text_tasks


def train_and_eval(cfg: DataConfig, maker: RowMaker) -> tuple[TokenizedCorpus | StreamedCorpus, TokenizedCorpus]:
    """Rows to train on and rows held out; nothing is read before one of them is used."""
    train = StreamedCorpus(cfg, maker) if cfg.endless else TokenizedCorpus(cfg, maker, "train")
    return train, TokenizedCorpus(cfg, maker, "eval")


class TextConfig(Protocol):
    """What the configuration of a recipe on texts has in common with others."""

    @property
    def data(self) -> DataConfig: ...

    @property
    def tokenizer(self) -> TokenizerConfig: ...

    @property
    def train(self) -> TrainConfig: ...


def tokenizer_for(config: TextConfig, encoder: NamedEncoder, context: BuildContext) -> TextTokenizer:
    """The tokenizer of a run, for an encoder: from the assets; on the first build trained, or the encoder's own."""
    return load_or_train(config.tokenizer, config.data, context.asset("tokenizer.json"), encoder)


def student_embedding(method: Method, inputs: TextInputs) -> Embedding:
    """The student's embedding: as a sentence-transformers model that it started from makes it, else the mean."""
    head = getattr(method.encoders().get("student"), "head", None)
    if not isinstance(head, SentenceHead):
        return text_embedding(inputs)
    default = head.default_prompt if head.prompt else None
    read = replace(inputs, unit_length=head.normalization == "unit", prompts=head.prompts, default_prompt=default)
    maps = head.maps if len(head.maps) else None
    return replace(text_embedding(read), pooling=head.pooling, maps=maps, normalization=head.normalization)


def text_experiment(
    method: Method, config: TextConfig, rows: RowMaker, collate: Callable[..., Any], inputs: TextInputs, **parts: Any
) -> Experiment:
    """An experiment on the documents of `config.data`: rows made by `rows`, batches by `collate`, and usual tasks.

    `inputs` reads texts for embedding. `parts` are other fields of the experiment, or stand in for those given here.
    """
    train_data, eval_data = train_and_eval(config.data, rows)
    embedding: Embedding = parts.pop("embedding", None) or student_embedding(method, inputs)
    assert isinstance(embedding.inputs, TextInputs)
    read = replace(embedding.inputs, synthetic_world=config.data.synthetic)
    usual: dict[str, Any] = {
        "method": method,
        "train_data": train_data,
        "eval_data": eval_data,
        "collate": collate,
        "embedding": replace(embedding, inputs=read),
        "train": config.train,
        "tasks": lambda: text_tasks(config.data),
        "unknown": lambda: train_data.unknown,
    }
    return Experiment(**{**usual, **parts})
