"""Text for recipes: the names a text recipe needs, and the questions its data can be asked.

`sources` gives documents, `tokenizer` and `rows` turn them into rows of ids, `corpus` keeps these and `streaming` makes
them on the way; this module is the front door.
"""

from __future__ import annotations

from itertools import islice

from openjepa.core.tasks import Task, classification
from openjepa.data.corpus import TokenizedCorpus, TokenRow, pad
from openjepa.data.rows import RowMaker, SentenceRows, TextRows
from openjepa.data.sentences import SentencesConfig
from openjepa.data.sources import DataConfig, Split, documents
from openjepa.data.streaming import StreamedCorpus
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
    "text_tasks",
    "train_and_eval",
]


def train_and_eval(cfg: DataConfig, maker: RowMaker) -> tuple[TokenizedCorpus | StreamedCorpus, TokenizedCorpus]:
    """Rows to train on and rows held out; nothing is read before one of them is used."""
    train = StreamedCorpus(cfg, maker) if cfg.endless else TokenizedCorpus(cfg, maker, "train")
    return train, TokenizedCorpus(cfg, maker, "eval")


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
