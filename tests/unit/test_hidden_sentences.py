"""One sentence is missing from each query, the same one every time, and can be found where it should be."""

from __future__ import annotations

import numpy as np
import pytest

from openjepa.core.errors import UserError
from openjepa.core.tasks import Search
from openjepa.data.files.readers import Counts
from openjepa.data.text.sentences import SentencesConfig
from openjepa.evals.search import searched
from openjepa.tasks.missing_sentence import hidden_sentence_tasks

TOPICS = ("bread", "boats", "birds", "rocks", "trees")
DOCUMENTS = [f"All {t} are old. Some {t} are red. Few {t} can talk. Most {t} like rain." for t in TOPICS]


def tasks(texts: list[str], limit: int = 0, most: int = 8) -> tuple[list[Search], Counts]:
    counts = Counts()
    return hidden_sentence_tasks("wiki", texts, limit, most, SentencesConfig(), counts), counts


def by_topic(texts: list[str]) -> np.ndarray:
    return np.array([[float(text.count(topic)) for topic in TOPICS] for text in texts])


def test_the_query_is_the_document_without_one_sentence() -> None:
    (within, elsewhere), _ = tasks(DOCUMENTS)
    assert (within.name, elsewhere.name) == ("wiki_within", "wiki_elsewhere")
    for query, gains, pool, text in zip(within.queries, within.gains, within.pools, DOCUMENTS, strict=True):
        (own,) = gains
        hidden = within.documents[own]
        assert hidden in text
        assert hidden not in query
        assert text.replace(hidden, "").split() == query.split()
        assert [within.documents[i] for i in pool] == text.replace(". ", ".. ").split(". ")  # all sentences of its own


def test_elsewhere_the_others_are_of_other_documents() -> None:
    (_, elsewhere), _ = tasks(DOCUMENTS)
    for gains, pool, topic in zip(elsewhere.gains, elsewhere.pools, TOPICS, strict=True):
        assert set(gains) == {pool[0]}
        assert [topic in elsewhere.documents[i] for i in pool] == [True] + [False] * 16


def test_an_encoder_that_knows_the_topic_finds_it_elsewhere_and_not_within() -> None:
    within, elsewhere = tasks(DOCUMENTS)[0]
    assert searched(elsewhere, by_topic, "run")["wiki_elsewhere_top1"].value == 1
    assert searched(within, by_topic, "run")["wiki_within_top1"].value == 0  # a tie of all four
    assert searched(within, by_topic, "run")["wiki_within_mrr"].value == 0.25
    assert searched(within, by_topic, "run")["wiki_within_top1"].chance == 0.25
    assert searched(within, by_topic, "run")["wiki_within_mrr"].chance == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_what_is_hidden_depends_on_the_document_alone() -> None:
    (within, _), _ = tasks(DOCUMENTS)
    (other, _), _ = tasks(DOCUMENTS[::-1])
    assert other.queries == within.queries[::-1]
    hidden = [within.documents[own] for gains in within.gains for own in gains]
    assert len({sentence.split()[0] for sentence in hidden}) > 1  # not always the same position


def test_limits_take_the_same_documents_and_count_what_is_too_short() -> None:
    (three, _), counts = tasks(
        [*DOCUMENTS, "One. Two sentences are not enough.", "Same here. Same here. Same here."], 3
    )
    assert len(three.queries) == 3
    assert dict(counts) == {"document of fewer than 3 sentences": 2}
    (again, _), _ = tasks(DOCUMENTS[::-1], 3)
    assert sorted(again.queries) == sorted(three.queries)
    (short, _), _ = tasks(DOCUMENTS, most=3)
    assert not any("rain" in text for text in [*short.queries, *short.documents])


def test_one_document_is_no_question() -> None:
    with pytest.raises(UserError, match="1 documents"):
        tasks(DOCUMENTS[:1])
