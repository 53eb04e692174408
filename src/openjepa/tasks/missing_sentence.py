"""Retrieval of a sentence that was removed from its document, by the embedding of the rest.

Only embeddings are used, so every method is measured in the same way, whatever it predicts in training (for recipes
that predict sentences, `sentence_tasks` measures these predictions). Two pools of candidates:

    <name>_within      all sentences of the same document. Those that were left in share every word with the query, so
                       similarity of words misleads, and word counts score far below chance
    <name>_elsewhere   the missing one among 99 sentences of other documents: tests topic, style and story

Which sentence is removed depends only on the words of the document, so it is the same for every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from openjepa.core.errors import UserError
from openjepa.core.seeding import generator_for, seed_for
from openjepa.core.tasks import Search, pool_table
from openjepa.data.files.readers import Counts
from openjepa.data.text.sentences import SentencesConfig, split_sentences
from openjepa.tasks.sampling import drawn
from openjepa.tasks.sentences import elsewhere

LEAST = 3  # sentences of a document: with fewer, the rest is hardly a text
MEASURES = ("top1", "mrr")


def hidden_sentence_tasks(
    name: str,
    texts: Iterable[str],
    limit: int,
    most_sentences: int,
    sentences: SentencesConfig,
    counts: Counts,
) -> list[Search]:
    """Both tasks on at most `limit` documents (0 = all), each cut after `most_sentences` sentences.

    Documents with fewer than three different sentences are counted and left out. Raises UserError if fewer than two
    are left.
    """
    usable = (found for text in texts if (found := _sentences(text, most_sentences, sentences, counts)))
    documents = drawn(usable, limit, " ".join)
    if len(documents) < 2:
        raise UserError(f"{len(documents)} documents of at least {LEAST} sentences; two are needed")
    hidden = [seed_for(0, "hidden sentence", *document) % len(document) for document in documents]  # number within each
    firsts = np.cumsum([0, *map(len, documents[:-1])])
    everything = [sentence for document in documents for sentence in document]  # C
    queries = [
        " ".join(sentence for i, sentence in enumerate(document) if i != number)
        for document, number in zip(documents, hidden, strict=True)
    ]
    targets = firsts + np.array(hidden)  # [Q]
    owner = np.repeat(np.arange(len(documents)), [*map(len, documents)])  # [C]
    pools = {
        "within": [np.flatnonzero(owner == number) for number in range(len(documents))],
        "elsewhere": [np.concatenate([[target], _elsewhere(everything, owner, target)]) for target in targets],
    }
    return [
        Search(
            name=f"{name}_{pool}",
            queries=queries,
            documents=everything,
            gains=[{int(target): 1.0} for target in targets],
            pools=pool_table(candidates),
            measures=MEASURES,
        )
        for pool, candidates in pools.items()
    ]


def _sentences(text: str, most: int, config: SentencesConfig, counts: Counts) -> list[str]:
    """The first sentences of a text, each once; none where they are too few."""
    distinct = dict.fromkeys(" ".join(text[start:end].split()) for start, end in split_sentences(text, config))
    if len(distinct) < LEAST:
        counts.add(f"document of fewer than {LEAST} sentences", text[:40])
        return []
    return list(distinct)[:most]


def _elsewhere(sentences: Sequence[str], owner: np.ndarray, target: int) -> np.ndarray:
    generator = generator_for(0, "hidden sentence, elsewhere", sentences[target])
    return elsewhere(sentences, owner, target, generator)
