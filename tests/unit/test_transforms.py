"""Text views: each is a pure function of sentences and generator, and never empty."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openjepa.core.errors import ConfigError
from openjepa.core.seeding import generator_for
from openjepa.data.text.transforms import (
    ViewsConfig,
    build_view,
    compose,
    delete_sentences,
    shuffle_sentences,
    truncate,
)

SENTENCES = st.lists(st.text(max_size=3), min_size=1, max_size=12)
LIMITS = st.sampled_from([0, *range(2, 15)])
CONFIGS = st.builds(ViewsConfig, delete=st.floats(0, 0.99), shuffle=st.booleans(), truncate=LIMITS)
TEN = [f"s{i}" for i in range(10)]


@given(SENTENCES, CONFIGS, st.integers(0, 99))
def test_views_are_pure_and_never_empty(sentences: list[str], config: ViewsConfig, seed: int) -> None:
    before = list(sentences)
    view = build_view(config)(sentences, generator_for(seed))
    assert view == build_view(config)(tuple(sentences), generator_for(seed))
    assert sentences == before
    assert view is not sentences
    assert view
    assert Counter(view) <= Counter(sentences)
    kept = max(min(2, len(sentences)), len(sentences) - round(config.delete * len(sentences)))
    assert len(view) == min(kept, config.truncate or kept)


def test_the_default_changes_nothing_and_draws_nothing() -> None:
    generator = generator_for(0)
    before = generator.get_state()
    assert build_view(ViewsConfig())(TEN, generator) == TEN
    assert truncate(3)(TEN, generator) == TEN[:3]
    assert generator.get_state().equal(before)


def test_deletion_keeps_order_and_is_uniform() -> None:
    generator = generator_for(0)
    views = [delete_sentences(0.3)(TEN, generator) for _ in range(2000)]
    assert all(len(view) == 7 and view == sorted(view) for view in views)
    counts = Counter(sentence for view in views for sentence in view)
    assert all(abs(counts[sentence] / 2000 - 0.7) < 0.05 for sentence in TEN)  # 5 standard errors
    assert delete_sentences(0.99)(["only"], generator) == ["only"]
    assert len(delete_sentences(0.99)(TEN, generator)) == 2


def test_shuffling_is_uniform_over_orders() -> None:
    generator = generator_for(0)
    orders = Counter(tuple(shuffle_sentences()("abc", generator)) for _ in range(6000))
    assert len(orders) == 6
    assert all(abs(count - 1000) < 150 for count in orders.values())  # 5 standard errors


def test_views_of_one_document_differ_and_repeat_by_address() -> None:
    view = build_view(ViewsConfig(delete=0.3, shuffle=True))
    first, second = (view(TEN, generator_for(0, "view", i)) for i in range(2))
    assert first != second
    assert first == view(TEN, generator_for(0, "view", 0))


def test_composition_runs_from_left_to_right() -> None:
    first_of_all = compose(truncate(2), shuffle_sentences())
    first_of_shuffled = compose(shuffle_sentences(), truncate(2))
    assert {first_of_all(TEN, generator_for(seed))[0] for seed in range(20)} == {"s0", "s1"}
    assert len({first_of_shuffled(TEN, generator_for(seed))[0] for seed in range(20)}) > 3
    assert compose()(TEN, generator_for(0)) == TEN


def test_bad_values_are_refused() -> None:
    for values in ({"delete": 1.0}, {"delete": -0.1}, {"truncate": -1}, {"truncate": 1}):
        with pytest.raises(ConfigError):
            ViewsConfig.load(values)
    with pytest.raises(ValueError, match="ratio"):
        delete_sentences(1.0)
    with pytest.raises(ValueError, match="max_sentences"):
        truncate(1)
    for transform in (compose(), truncate(2), shuffle_sentences(), delete_sentences(0.5)):
        with pytest.raises(ValueError, match="at least one"):
            transform([], generator_for(0))
