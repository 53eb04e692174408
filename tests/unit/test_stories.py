"""Laws of the stories world: its lexicon, its addresses, and that its triplets need meaning and forbid wording."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from openjepa.core.errors import UserError
from openjepa.core.tasks import Triplets
from openjepa.data.worlds import lexicon
from openjepa.data.worlds.lexicon import CONCEPT_OF, CONCEPTS, FACTORS, LEADS, TEMPLATES, indefinite
from openjepa.data.worlds.stories import SCENERY, Stories, Story, factor_tasks, semantic_example, triplets
from openjepa.data.worlds.telling import MAX_MENTIONS, Split

MAIN = ("agent", "action", "object", "place")


def tokens(text: str) -> list[str]:
    return re.findall(r"[a-z'-]+", text.lower())


def content(text: str) -> list[str]:
    return [word for word in tokens(text) if word in CONCEPT_OF]


def concepts(text: str) -> list[str]:
    return [f"{name}{index}" for name, index in (CONCEPT_OF[word] for word in content(text))]


@cache
def stories(split: Split = "train", count: int = 5000) -> list[Story]:
    data = Stories(split, count)
    return [data[index] for index in range(count)]


@cache
def held_out_triplets() -> Triplets:
    return triplets(500)


def accuracy(vectorizer: TfidfVectorizer, task: Triplets) -> float:
    """Share of triplets whose anchor is strictly nearer to the positive, by cosine."""
    anchors, positives, negatives = (
        vectorizer.transform(texts).toarray() for texts in (task.anchors, task.positives, task.negatives)
    )
    return float(np.mean((anchors * positives).sum(1) > (anchors * negatives).sum(1)))


# --- lexicon


def test_every_concept_has_five_plain_words() -> None:
    for words in (words for concepts_ in CONCEPTS.values() for words in concepts_):
        assert len(set(words)) == 5, words
        assert all(re.fullmatch(r"[a-z]+", word) for word in words), words


def test_no_word_belongs_to_two_concepts_or_to_a_template() -> None:
    words = [word for concepts_ in CONCEPTS.values() for words in concepts_ for word in words]
    assert [word for word, count in Counter(words).items() if count > 1] == []
    forms = [template.form.replace("%s", " ") for templates in TEMPLATES.values() for template in templates]
    assert set(words) & {word for text in (*forms, *LEADS) for word in tokens(text)} == set()


def test_factor_sizes() -> None:
    assert len(FACTORS["topic"]) == 12
    assert {name: len(FACTORS[name]) for name in MAIN} == {"agent": 96, "action": 96, "object": 96, "place": 72}


def test_indefinite_articles_go_by_sound() -> None:
    given = ("onion", "ewe", "hourglass", "usurer", "university", "ulcer", "unhappy", "urn", "eulogised", "pie")
    articles = [indefinite(word).split()[0] for word in given]
    assert articles == ["an", "a", "an", "a", "a", "an", "an", "an", "a", "a"]


def test_packed_mentions_round_trip() -> None:
    counts = dict.fromkeys(lexicon.NAMES, 0) | {"agent": 3, "time": 2}
    assert lexicon.unpack(lexicon.packed(counts)) == counts


# --- documents


def test_a_story_is_a_function_of_split_seed_and_index() -> None:
    assert Stories("train", 50)[7] == Stories("train", 9, seed=0)[7]
    assert Stories("train", 50)[-1] == Stories("train", 50)[49]
    texts = {Stories("train", 50)[7].text, Stories("train", 50, seed=1)[7].text, Stories("test", 50)[7].text}
    assert len(texts) == 3


def test_documents_are_many_and_distinct() -> None:
    assert math.prod(len(FACTORS[name]) for name in MAIN) / 12**3 * 7 / 8 * (6 * 4 * 5 * 6 * 4) > 200_000  # times plans
    assert len({story.text for story in stories()}) == len(stories())


def test_vocabulary_and_length() -> None:
    documents = [tokens(story.text) for story in stories(count=12_000)]
    words = {word for document in documents for word in document}
    assert words >= set(CONCEPT_OF)
    assert len(words) > 2000
    assert 45 <= np.mean([len(document) for document in documents]) <= 60


def test_splits_share_no_event_but_all_concepts() -> None:
    def events(split: Split) -> set[tuple[int, ...]]:
        return {tuple(story.factors[name] for name in MAIN) for story in stories(split)}

    train, test = events("train"), events("test")
    assert not train & test
    assert all({event[k] for event in train} == {event[k] for event in test} for k in range(4))


def test_mentions_say_the_factors_in_ever_new_words() -> None:
    twice = Counter()
    for story in stories():
        words = content(story.text)
        assert len(set(words)) == len(words), story.text
        counts = Counter(name for name, _ in map(CONCEPT_OF.__getitem__, words))
        assert all(story.factors[name] == index for name, index in map(CONCEPT_OF.__getitem__, words))
        assert set(counts) >= set(FACTORS) - {"topic"}
        assert max(counts.values()) <= MAX_MENTIONS
        twice.update(name for name in counts if counts[name] > 1)
    shares = {name: twice[name] / len(stories()) for name in FACTORS if name != "topic"}
    assert all(share < 0.2 if name in SCENERY else share > 0.9 for name, share in shares.items()), shares


def test_sentences_are_well_formed() -> None:
    for story in stories():
        sentences = re.split(r"(?<=[.?]) ", story.text)
        assert 5 <= len(sentences) <= 6, story.text
        assert all(re.fullmatch(r"[A-Z][a-z',; -]+[.?]", sentence) for sentence in sentences), story.text
        assert not re.search(r"  | [,.;?]|[%{}]", story.text)
        for article, word in re.findall(r"\b([Aa]n?) ([a-z]+)", story.text):
            assert f"{article.lower()} {word}" == indefinite(word), story.text


@pytest.mark.parametrize("bad", [{"split": "valid"}, {"size": 0}])
def test_bad_arguments_are_named(bad: dict) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        Stories(**bad)


def test_index_out_of_range() -> None:
    with pytest.raises(IndexError):
        Stories("train", 5)[5]


# --- tasks


def test_paraphrases_share_no_content_word_and_keep_every_factor() -> None:
    task = held_out_triplets()
    anchors = Stories("test", 500)
    for index, (anchor, positive) in enumerate(zip(task.anchors, task.positives, strict=True)):
        assert anchor == anchors[index].text
        assert not set(content(anchor)) & set(content(positive))
        assert set(concepts(anchor)) - set(concepts(positive)) <= {f"topic{anchors[index].factors['topic']}"}


def test_distractors_share_most_words_and_change_three_or_four_concepts() -> None:
    def overlap(one: str, other: str) -> float:
        return len(set(tokens(one)) & set(tokens(other))) / len(set(tokens(one)))

    task = held_out_triplets()
    for anchor, positive, negative in zip(task.anchors, task.positives, task.negatives, strict=True):
        assert overlap(anchor, negative) >= 0.6 > overlap(anchor, positive) + 0.1
        lost = {concept.rstrip("0123456789") for concept in set(concepts(anchor)) - set(concepts(negative))}
        assert len(lost & set(MAIN)) == 3
        assert lost <= {*MAIN, "sentiment", "outcome"}
        topics = {
            index * 12 // len(FACTORS[name])
            for name, index in map(CONCEPT_OF.__getitem__, content(negative))
            if name in MAIN
        }
        assert len(topics) == 1


def test_wording_fails_and_meaning_succeeds_on_triplets() -> None:
    corpus = [story.text for story in stories()]
    words = TfidfVectorizer().fit(corpus)
    meanings = TfidfVectorizer(analyzer=concepts, use_idf=False).fit(corpus)
    assert accuracy(words, held_out_triplets()) <= 0.02
    assert accuracy(meanings, held_out_triplets()) >= 0.95


def test_factor_tasks_are_disjoint_and_labelled_by_the_text() -> None:
    tasks = {task.name: task for task in factor_tasks(train=200, test=100)}
    assert set(tasks) == set(FACTORS) - set(SCENERY)
    agent = tasks["agent"]
    assert not set(agent.train) & set(agent.test)
    assert (len(agent.train), len(agent.train_labels), len(agent.test), len(agent.test_labels)) == (200, 200, 100, 100)
    assert all(f"agent{label}" in concepts(text) for text, label in zip(agent.test, agent.test_labels, strict=True))


def test_semantic_example_keeps_the_event_in_other_words() -> None:
    for seed in range(50):
        original, variation, unrelated = semantic_example(seed)
        assert not set(content(original)) & set(content(variation))
        assert {c for c in concepts(original) if c.startswith(MAIN)} == {
            c for c in concepts(variation) if c.startswith(MAIN)
        }
        assert not {c for c in concepts(original) if c.startswith(MAIN)} & set(concepts(unrelated))
        assert max(len(tokens(text)) for text in (original, variation, unrelated)) <= 45
