"""Paired statistics: equal to SciPy's and to values worked out by hand; intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from openjepa.core.seeding import generator_for
from openjepa.evals.scores import Score, difference_draws, difference_interval
from openjepa.evals.statistics import difference, holm, paired_interval, seeds_difference, sign_flip_p


def normal(*shape: int, draw: int = 0) -> np.ndarray:
    return torch.randn(*shape, generator=generator_for(0, "test", draw), dtype=torch.float64).numpy()


def scores(values: np.ndarray) -> list[Score]:
    """[S, N] -> S scores of N items."""
    return [Score(items, 0.0) for items in values]


@pytest.mark.parametrize("count", [2, 3, 6, 12])
def test_exact_sign_flips_equal_scipys_paired_permutation_test(count: int) -> None:
    x = normal(count) + 0.4
    expected = stats.permutation_test((x, np.zeros(count)), lambda a, b: (a - b).mean(), permutation_type="samples")
    assert sign_flip_p(x, generator_for(0, "p")) == pytest.approx(expected.pvalue)


def test_on_right_and_wrong_it_is_mcnemars_exact_test() -> None:
    only_first, only_second = 9, 3
    x = np.array([1.0] * only_first + [-1.0] * only_second + [0.0] * 500)
    expected = stats.binomtest(only_first, only_first + only_second).pvalue
    assert sign_flip_p(x, generator_for(0, "p")) == pytest.approx(expected)


def test_drawn_sign_flips_come_close_to_a_t_test_and_are_never_zero() -> None:
    x = normal(400) + 0.1
    expected = stats.ttest_1samp(x, 0).pvalue
    assert sign_flip_p(x, generator_for(0, "p")) == pytest.approx(expected, abs=0.01)
    assert sign_flip_p(x + 5, generator_for(0, "p"), flips=999) == pytest.approx(1 / 1000)


def test_three_seeds_cannot_give_less_than_a_quarter_and_no_difference_gives_one() -> None:
    assert sign_flip_p(np.array([0.3, 0.31, 0.29]), generator_for(0, "p")) == 0.25
    assert sign_flip_p(np.array([0.3] * 6), generator_for(0, "p")) == 2 / 64
    assert sign_flip_p(np.zeros(5), generator_for(0, "p")) == 1


def test_under_no_difference_p_values_are_as_rare_as_they_say() -> None:
    found = np.array([sign_flip_p(normal(8, draw=i), generator_for(0, "p")) for i in range(400)])
    for alpha in (0.05, 0.2, 0.5):
        assert (found <= alpha).mean() == pytest.approx(alpha, abs=3 * (alpha * (1 - alpha) / 400) ** 0.5 + 1 / 128)


def test_holm_equals_values_worked_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # x 3, 1, 2, 4, then rising
    assert holm([0.5, 0.6, 0.02]) == pytest.approx([1.0, 1.0, 0.06])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni() -> None:
    p = np.abs(np.sin(np.arange(1, 20)))
    corrected = np.array(holm(p.tolist()))
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(p * len(p), 1)).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()


def test_one_seed_gives_the_interval_of_the_scorecard() -> None:
    first, second = Score(normal(200) + 0.2, 0.0), Score(normal(200, draw=1), 0.0)
    expected = difference_interval(first, second, generator_for(0, "b"), resamples=500)
    assert paired_interval([first], [second], generator_for(0, "b"), resamples=500) == pytest.approx(expected)


def test_one_seed_of_many_items_gives_scipys_bootstrap_interval() -> None:
    a, b = normal(300) + 0.2, normal(300, draw=1)
    reference = stats.bootstrap((a - b,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    low, high = paired_interval(scores(a[None]), scores(b[None]), generator_for(0, "b"), resamples=4000)
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.02)


@pytest.mark.parametrize("seeds", [1, 3])
def test_alike_items_of_one_group_count_once(seeds: int) -> None:
    """Every item five times over, in any order, says no more than once: the same interval and the same p-value."""
    a, b = normal(seeds, 60) + 0.2, normal(seeds, 60, draw=1)
    order = np.argsort(normal(300, draw=2))
    again = np.repeat(np.arange(60), 5)[order]
    once = difference(scores(a), scores(b), generator_for(0, "b"))
    grouped = [[Score(row[again], 0.0, groups=again) for row in rows] for rows in (a, b)]
    often = difference(*grouped, generator_for(0, "b"))
    assert often.interval == pytest.approx(once.interval)
    assert often.p_items == pytest.approx(once.p_items)
    apart = difference(*(scores(rows[:, again]) for rows in (a, b)), generator_for(0, "b"))
    assert apart.interval is not None
    assert once.interval is not None
    if seeds == 1:
        assert apart.interval[1] - apart.interval[0] < 0.6 * (once.interval[1] - once.interval[0])
    assert apart.p_items < once.p_items


@pytest.mark.parametrize("groups", [1, 9])
def test_few_groups_give_no_interval(groups: int) -> None:
    """Forty questions of one document are one draw: nothing is claimed, however many questions."""
    items = np.arange(40) % groups
    first, second = (Score(np.abs(normal(40, draw=d)), 0.0, groups=items) for d in (0, 1))
    assert not first.can_be_redrawn
    found = difference([first], [second], generator_for(0, "b"))
    assert (found.interval, found.p_items) == (None, None)
    assert Score(first.items, 0.0, groups=np.arange(40) % 10).can_be_redrawn
    assert not Score(first.items[:1], 0.0).can_be_redrawn


def test_groups_that_only_one_side_knows_count_in_either_order() -> None:
    grouped = Score(normal(60), 0.0, groups=np.arange(60) // 4)
    plain = Score(normal(60, draw=1), 0.0)  # kept before groups were known
    there, back = (
        difference([a], [b], generator_for(0, "b")).interval for a, b in ((grouped, plain), (plain, grouped))
    )
    assert there is not None
    assert back is not None
    assert there[1] - there[0] == pytest.approx(back[1] - back[0])


def test_groups_of_other_sizes_weigh_as_many_items() -> None:
    """A ratio: of two groups, three items that differ by 1 and one that does not, each drawn as a whole."""
    first = Score(np.array([1.0, 1.0, 1.0, 0.0]), 0.0, groups=np.array([7, 7, 7, 9]))
    drawn = difference_draws([first], [Score(np.zeros(4), 0.0, groups=first.groups)], 4000, generator_for(0, "b"))[:, 0]
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0.0, 0.75, 1.0]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_what_seeds_and_what_items_vary_both_widen_the_interval() -> None:
    zeros = scores(np.zeros((6, 400)))
    by_item = np.broadcast_to(normal(400), (6, 400))
    by_seed = np.broadcast_to(0.05 * normal(6, 1, draw=1), (6, 400))

    def width(values: np.ndarray) -> float:
        low, high = paired_interval(scores(values), zeros, generator_for(0, "b"))
        return high - low

    assert width(by_item + by_seed) > max(width(by_item), width(by_seed)) > 0
    interval = stats.ttest_1samp(by_seed[:, 0], 0).confidence_interval()
    assert width(by_seed) == pytest.approx(interval.high - interval.low, rel=0.1)


def test_pairing_removes_what_both_share() -> None:
    hard = 3 * normal(500)
    first, second = scores(np.stack([hard + 0.1] * 3)), scores(np.stack([hard] * 3))
    assert paired_interval(first, second, generator_for(0, "b")) == pytest.approx((0.1, 0.1))
    found = difference(first, second, generator_for(0, "d"))
    assert found.value == pytest.approx(0.1)
    assert (found.agreeing, found.seeds, found.p_seeds) == (3, 3, 0.25)
    assert found.p_items == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_the_interval_covers_a_true_difference_as_often_as_it_says_even_with_few_seeds(seeds: int) -> None:
    covered, truth, zeros = 0, 0.3, scores(np.zeros((seeds, 60)))
    for draw in range(200):
        items = truth + normal(seeds, 1, draw=2 * draw) * 0.2 + normal(1, 60, draw=2 * draw + 1)
        low, high = paired_interval(scores(items), zeros, generator_for(draw, "b"), resamples=300)
        covered += low <= truth <= high
    assert 0.9 <= covered / 200 <= 0.995


def test_a_rank_correlation_is_the_mean_of_what_its_pairs_contribute() -> None:
    cosines, gold = np.round(normal(60), 1), np.round(normal(60, draw=1))  # with ties
    score = Score(cosines, 0.0, gold)
    assert score.contributions.mean() == pytest.approx(stats.spearmanr(cosines, gold).statistic)
    assert score.contributions.mean() == pytest.approx(score.value)
    assert not Score(np.ones(9), 0.0, normal(9)).contributions.any()


def test_two_rank_correlations_are_swapped_pair_by_pair() -> None:
    gold = normal(80)
    good = [Score(gold + 0.3 * normal(80, draw=i), 0.0, gold) for i in range(1, 4)]
    bad = [Score(normal(80, draw=i), 0.0, gold) for i in range(4, 7)]
    found = difference(good, bad, generator_for(0, "d"))
    assert found.p_items == pytest.approx(1e-4, rel=0.01)
    equal = difference(bad, [Score(normal(80, draw=i), 0.0, gold) for i in range(7, 10)], generator_for(0, "d"))
    assert equal.p_items is not None
    assert equal.p_items > 0.05
    assert found.interval is not None
    assert 0.1 < found.interval[0] < found.value < found.interval[1] < 2


def test_other_test_items_leave_the_seeds_to_pair() -> None:
    found = difference(scores(np.full((3, 10), 0.4)), scores(np.full((3, 12), 0.1)), generator_for(0, "d"))
    assert found.p_items is None
    assert found.interval == pytest.approx((0.3, 0.3))


def test_a_figure_without_items() -> None:
    by_seed = np.array([0.1, 0.3, -0.1])
    found = seeds_difference(by_seed, generator_for(0, "d"))
    assert (found.value, found.agreeing, found.seeds) == (pytest.approx(0.1), 2, 3)
    assert found.interval == pytest.approx(tuple(stats.ttest_1samp(by_seed, 0).confidence_interval()))
    assert seeds_difference(np.array([0.1]), generator_for(0, "d")).interval is None
    assert seeds_difference(np.array([0.0, 0.0]), generator_for(0, "d")).agreeing == 0


def test_the_same_generator_gives_the_same_answer() -> None:
    first, second = scores(normal(3, 50)), scores(normal(3, 50, draw=1))
    assert difference(first, second, generator_for(0, "d")) == difference(first, second, generator_for(0, "d"))
