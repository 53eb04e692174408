"""Text for recipes: the names a text recipe needs, and the questions its data can be asked.

`sources` gives documents, `tokenizer` and `rows` turn them into rows of ids, `corpus` keeps these and `streaming` makes
them on the way; this module is the front door.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Method
from openjepa.core.tasks import Task, classification
from openjepa.core.vocabulary import NamedEncoder
from openjepa.data.corpus import TokenizedCorpus, TokenRow, pad
from openjepa.data.rows import RowMaker, SentenceRows, TextRows
from openjepa.data.sentences import SentencesConfig
from openjepa.data.sources import DataConfig, Split, documents
from openjepa.data.streaming import StreamedCorpus
from openjepa.data.text_inputs import TextInputs, text_embedding
from openjepa.data.tokenizer import TextTokenizer, TokenizerConfig, load_or_train

__all__ = [
    "SentenceRows",
    "SentencesConfig",
    "StreamedCorpus",
    "TextRows",
    "TextTokenizer",
    "TokenRow",
    "TokenizedCorpus",
    "TokenizerConfig",
    "load_or_train",
    "pad",
    "text_experiment",
    "text_tasks",
    "tokenizer_for",
    "train_and_eval",
]


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
    """The tokenizer of a run, for an encoder: kept in the assets; on the first build trained, or the encoder's own."""
    return load_or_train(config.tokenizer, config.data, context.assets / "tokenizer.json", encoder)


def text_experiment(
    method: Method, config: TextConfig, rows: RowMaker, collate: Callable[..., Any], inputs: TextInputs, **parts: Any
) -> Experiment:
    """An experiment on the documents of `config.data`: rows made by `rows`, batches by `collate`, and usual tasks.

    `inputs` reads texts for embedding. `parts` are other fields of the experiment, or stand in for those given here.
    """
    train_data, eval_data = train_and_eval(config.data, rows)
    embedding: Embedding = parts.pop("embedding", text_embedding(inputs))
    read = replace(inputs, synthetic_world=config.data.synthetic)
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


def text_tasks(cfg: DataConfig, train: int = 4000, test: int = 1000) -> list[Task]:
    """What can be asked of an encoder trained on this source.

    The story world asks for its factors and for paraphrases, on events no model was trained on. Other sources ask for
    `data.label` if it is set: probes learn on the first `train` training documents, held-out ones test them.
    """
    if cfg.source == "stories":
        from openjepa.data.worlds.stories import factor_tasks, triplets

        return [triplets(), *factor_tasks()]
    if cfg.label is None:
        return []
    return [classification(cfg.label, _labelled(cfg, "train", train), _labelled(cfg, "eval", test))]


def _labelled(cfg: DataConfig, split: Split, limit: int) -> list[tuple[str, str]]:
    labelled = (
        (d.text, d.label) for d in documents(cfg, split) if d.label is not None and d.label not in cfg.ignore_labels
    )
    return list(islice(labelled, limit))
