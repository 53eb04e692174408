"""Tasks for encoders of texts: the factors and paraphrases of the story world, or a source's labels."""

from __future__ import annotations

from itertools import islice

from openjepa.core.tasks import Task, classification
from openjepa.data.text.sources import DataConfig, Split, documents


def text_tasks(cfg: DataConfig, train: int = 4000, test: int = 1000) -> list[Task]:
    """Tasks for an encoder trained on this source.

    The story world has probes of its factors and paraphrases, on events no model was trained on; other sources have a
    probe of `data.label` if it is set, fitted on the first `train` training documents and tested on held-out ones.
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
