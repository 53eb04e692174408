"""Which sentence is missing? One is taken out of each document, and the embedding of the rest has to find it.

Only embeddings are asked, so every method answers in the same way, whatever it predicts in training (a recipe that
predicts sentences is asked for its own predictions by `sentence_tasks`). Two pools of candidates:

    <name>_within      all sentences of the same document. Those that were left in share every word with the query, so
                       looking for what was seen is wrong, and word counts stay far below chance
    <name>_elsewhere   the missing one among 99 sentences of other documents: is the topic, the style, the story there?

Which sentence is taken out depends on the words of the document alone, so it is the same for every run.
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
    """Both questions on at most `limit` documents (0 = all), each cut after `most_sentences` sentences.

    Documents with fewer than three different sentences are counted and left out. Raises UserError if fewer than two
    are left.
    """
    usable = (found for text in texts if (found := _sentences(text, most_sentences, sentences, counts)))
    documents = drawn(usable, limit, " ".join)
    if len(documents) < 2:
        raise UserError(f"{len(documents)} documents of at least {LEAST} sentences; two are needed")
    hidden = [seed_for(0, "hidden sentence", *found) % len(found) for found in documents]  # number within each
    firsts = np.cumsum([0, *(len(found) for found in documents[:-1])])
    everything = [sentence for found in documents for sentence in found]  # C
    queries = [
        " ".join(s for i, s in enumerate(found) if i != own) for found, own in zip(documents, hidden, strict=True)
    ]
    own = firsts + np.array(hidden)  # [Q]
    owner = np.repeat(np.arange(len(documents)), [len(found) for found in documents])  # [C]
    pools = {
        "within": [np.flatnonzero(owner == number) for number in range(len(documents))],
        "elsewhere": [np.concatenate([[missing], _elsewhere(everything, owner, missing)]) for missing in own],
    }
    return [
        Search(
            name=f"{name}_{pool}",
            queries=queries,
            documents=everything,
            gains=[{int(number): 1.0} for number in own],
            pools=pool_table(candidates),
            measures=MEASURES,
        )
        for pool, candidates in pools.items()
    ]


def _sentences(text: str, most: int, config: SentencesConfig, counts: Counts) -> list[str]:
    """The first sentences of a text, each once; none where they are too few."""
    found = dict.fromkeys(" ".join(text[start:end].split()) for start, end in split_sentences(text, config))
    if len(found) < LEAST:
        counts.add(f"document of fewer than {LEAST} sentences", text[:40])
        return []
    return list(found)[:most]


def _elsewhere(sentences: Sequence[str], owner: np.ndarray, missing: int) -> np.ndarray:
    generator = generator_for(0, "hidden sentence, elsewhere", sentences[missing])
    return elsewhere(sentences, owner, missing, generator)
