"""Statistics against slow references, published definitions, and the properties that define them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu, trim_mean, ttest_rel

from optix_core.evaluation import (
    compare_runs,
    iqm,
    mean,
    normalise,
    paired_test,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
    summarise,
)
from optix_core.evaluation.intervals import student

scores = arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6).map(lambda value: round(value, 3)))
BAD = [[], [1.0, np.nan], [np.inf, 1.0]]


class TestIqm:
    @given(scores)
    def test_is_scipys_trimmed_mean_as_in_rliable(self, values):
        assert float(iqm(values)) == pytest.approx(trim_mean(values, 0.25), rel=1e-9, abs=1e-6)

    @given(scores, st.floats(-100, 100), st.floats(0.01, 100))
    def test_moves_and_scales_with_the_scores(self, values, shift, scale):
        assert float(iqm(scale * values + shift)) == pytest.approx(scale * float(iqm(values)) + shift, abs=1e-4)

    def test_one_outlier_does_not_move_it(self):
        assert float(iqm([1, 2, 3, 4, 5, 6, 7, 8])) == float(iqm([1, 2, 3, 4, 5, 6, 7, 8e9])) == 4.5

    def test_works_along_the_last_axis(self):
        matrix = np.random.default_rng(0).normal(size=(3, 4, 11))
        expected = [[float(iqm(matrix[i, j])) for j in range(4)] for i in range(3)]
        np.testing.assert_allclose(iqm(matrix), expected)

    def test_of_nothing_is_an_error(self):
        with pytest.raises(ValueError, match="at least one"):
            iqm([])


class TestSummarise:
    def test_names_and_values(self):
        summary = summarise([1.0, 2.0, 3.0, 4.0, 100.0])
        assert set(summary) == {"mean", "iqm", "ci_low", "ci_high", "episodes"}
        assert (summary["mean"], summary["iqm"], summary["episodes"]) == (22.0, 3.0, 5)
        assert summary["ci_low"] < 22.0 < summary["ci_high"]

    @pytest.mark.parametrize("episodes", [10, 30, 100])
    def test_interval_covers_the_true_mean_as_often_as_it_says(self, episodes):
        rng = np.random.default_rng(episodes)
        summaries = [summarise(rng.normal(size=episodes), resamples=1000, seed=i) for i in range(1000)]
        assert 0.93 <= np.mean([s["ci_low"] <= 0 <= s["ci_high"] for s in summaries]) <= 0.97

    def test_equal_returns_have_no_width(self):
        summary = summarise([500.0] * 20)
        assert summary["ci_low"] == summary["ci_high"] == summary["mean"] == summary["iqm"] == 500

    def test_nothing_is_drawn(self):
        returns = np.random.default_rng(1).normal(size=30)
        assert summarise(returns, seed=3) == summarise(returns, seed=4, resamples=10)

    @pytest.mark.parametrize("returns", BAD)
    def test_refuses_what_has_no_mean(self, returns):
        with pytest.raises(ValueError, match="returns must be"):
            summarise(returns)


class TestStratifiedBootstrap:
    def test_another_statistic_agrees_with_a_naive_bootstrap(self):
        tasks = [np.random.default_rng(2).normal(size=9), np.random.default_rng(3).normal(2, 3, size=6)]
        rng = np.random.default_rng(4)
        naive = [
            np.mean(list(itertools.chain(*(rng.choice(task, size=len(task)) for task in tasks)))) for _ in range(20_000)
        ]
        interval = stratified_bootstrap(tasks, lambda values: values.mean(axis=-1), confidence=0.8, resamples=20_000)
        # The naive one's variance is too small by (n - 1) / n of each task.
        parts = [len(task) * task.var() for task in tasks]
        unbiased = [part * len(task) / (len(task) - 1) for part, task in zip(parts, tasks, strict=True)]
        error = np.std(naive) * np.sqrt(sum(unbiased) / sum(parts))
        freedom = sum(unbiased) ** 2 / (unbiased[0] ** 2 / 8 + unbiased[1] ** 2 / 5)
        assert interval.estimate == pytest.approx(np.concatenate(tasks).mean())
        assert interval.high - interval.estimate == pytest.approx(student(freedom, 0.8) * error, rel=0.1)
        assert interval.estimate - interval.low == pytest.approx(interval.high - interval.estimate)
        exact = stratified_bootstrap(tasks, mean, confidence=0.8)
        assert exact.high == pytest.approx(interval.high, rel=0.1)

    def test_never_mixes_tasks(self):
        matrix = np.array([[0.0, 100.0]] * 8)  # two tasks, each without any spread
        interval = stratified_bootstrap(matrix)
        assert interval.low == interval.high == interval.estimate == 50.0

    def test_takes_an_array_of_runs_by_tasks_or_a_vector_per_task(self):
        matrix = np.random.default_rng(5).normal(size=(7, 3))
        assert stratified_bootstrap(matrix) == stratified_bootstrap(list(matrix.T))

    def test_interval_shrinks_with_more_runs(self):
        values = np.random.default_rng(6).normal(size=400)
        few, many = stratified_bootstrap(values[:20]), stratified_bootstrap(values)
        assert many.high - many.low < 0.4 * (few.high - few.low)

    @pytest.mark.parametrize("bad", [*BAD, [[1.0], []], np.zeros((2, 2, 2)), np.zeros((0, 3))])
    def test_refuses_unusable_scores(self, bad):
        with pytest.raises(ValueError, match="scores"):
            stratified_bootstrap(bad)

    def test_refuses_an_impossible_confidence(self):
        with pytest.raises(ValueError, match="confidence"):
            stratified_bootstrap([1.0, 2.0], confidence=95)


class TestProbabilityOfImprovement:
    def test_counts_wins_and_half_the_ties_on_each_task(self):
        x = [np.array([1.0, 2.0, 2.0]), np.array([5.0, 6.0])]
        y = [np.array([2.0, 0.0]), np.array([5.5, 7.0, 1.0])]
        expected = np.mean([
            np.mean([float(a > b) + 0.5 * (a == b) for a in xs for b in ys]) for xs, ys in zip(x, y, strict=True)
        ])  # fmt: skip
        assert probability_of_improvement(x, y).estimate == pytest.approx(expected)

    @given(scores, scores)
    @settings(max_examples=30)
    def test_is_the_mann_whitney_statistic_and_complementary(self, x, y):
        forth, back = probability_of_improvement(x, y, resamples=50), probability_of_improvement(y, x, resamples=50)
        assert forth.estimate == pytest.approx(mannwhitneyu(x, y).statistic / (len(x) * len(y)))
        assert forth.estimate + back.estimate == pytest.approx(1)
        assert 0 <= forth.low <= forth.high <= 1

    def test_interval_covers_the_truth(self):
        rng = np.random.default_rng(7)
        covered = []
        for seed in range(200):
            interval = probability_of_improvement(
                rng.normal(0.5, 1, 20), rng.normal(0, 1, 20), resamples=500, seed=seed
            )
            covered.append(interval.low <= 0.6382 <= interval.high)  # Phi(0.5 / sqrt 2)
        assert 0.9 <= np.mean(covered) <= 0.99

    def test_needs_the_same_tasks(self):
        with pytest.raises(ValueError, match="same tasks"):
            probability_of_improvement(np.zeros((3, 2)), np.zeros((3, 4)))


class TestPerformanceProfile:
    def test_is_the_share_of_runs_above_each_threshold(self):
        matrix = np.random.default_rng(8).normal(size=(10, 4))
        profile = performance_profile(matrix, thresholds=[-1.0, 0.0, 0.7])
        np.testing.assert_allclose(profile.fraction, [(matrix > tau).mean() for tau in (-1.0, 0.0, 0.7)])
        assert (profile.low <= profile.fraction).all()
        assert (profile.fraction <= profile.high).all()

    def test_falls_from_left_to_right_and_ends_at_zero(self):
        profile = performance_profile(np.random.default_rng(9).normal(size=30))
        assert (np.diff(profile.fraction) <= 0).all()
        assert profile.fraction[-1] == 0

    def test_weighs_tasks_equally(self):
        profile = performance_profile([np.ones(90), np.zeros(10)], thresholds=[0.5])
        assert profile.fraction[0] == 0.5


class TestPairedTest:
    @given(st.integers(0, 1000))
    @settings(max_examples=30)
    def test_is_students_paired_test(self, seed):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=12)
        x, y = shared + 0.3 * rng.normal(size=12) + 0.2, shared + 0.3 * rng.normal(size=12)
        ours, reference = paired_test(x, y), ttest_rel(x, y)
        interval = reference.confidence_interval(0.95)
        assert (ours.z, ours.p_value) == pytest.approx((reference.statistic, reference.pvalue))
        assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))
        assert ours.p_greater == pytest.approx(ttest_rel(x, y, alternative="greater").pvalue)
        back = paired_test(y, x)
        assert (back.z, back.p_value, back.low) == pytest.approx((-ours.z, ours.p_value, -ours.high))

    def test_common_seeds_find_what_independent_ones_hide(self):
        shared = 100 * np.random.default_rng(10).normal(size=10)
        test = paired_test(shared + 1 + 0.1 * np.random.default_rng(11).normal(size=10), shared)
        assert test.p_greater < 1e-6
        assert test.correlation > 0.999

    def test_without_any_spread_it_counts_signs(self):
        worse = paired_test([490.0] * 10, [500.0] * 10)
        assert (worse.z, worse.p_value) == (-np.inf, 2**-9)
        assert (worse.mean_difference, worse.low, worse.high) == (-10, -10, -10)
        equal = paired_test([500.0] * 10, [500.0] * 10)
        assert (equal.z, equal.p_value, equal.p_greater) == (0, 1, 0.5)

    @pytest.mark.parametrize(("x", "y"), [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1.0, 2.0])])
    def test_refuses_what_cannot_be_paired(self, x, y):
        with pytest.raises(ValueError, match=r"paired test|finite"):
            paired_test(x, y)


def test_normalise_maps_each_task_to_the_unit_range():
    raw = np.array([[-21.0, 0.0], [21.0, 500.0], [0.0, 250.0]])
    np.testing.assert_allclose(normalise(raw, low=[-21, 0], high=[21, 500]), [[0, 0], [1, 1], [0.5, 0.5]])
    with pytest.raises(ValueError, match="must differ"):
        normalise(raw, low=0, high=[1, 0])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: summarise([1e200, -1e200]), r"returns must lie within 1e\+150: scale the rewards"),
        (lambda: summarise(iter([1.0])), "returns must be numbers"),
        (lambda: summarise([1j, 2.0]), "returns must be numbers"),
        (lambda: summarise([[1.0], [1.0, 2.0]]), "returns must be numbers"),
        (lambda: paired_test([1.0, 2.0], [2.0, 4.0], confidence=0), "confidence must lie between 0 and 1, got 0"),
        (lambda: paired_test([1.0, 2.0], [2.0, 4.0], confidence=float("nan")), "confidence must lie between 0 and 1"),
        (lambda: paired_test([1.0, 2.0], [2.0, 4.0], confidence=".9"), "confidence must lie between 0 and 1, got '.9'"),
        (lambda: compare_runs([[1.0, 2.0], [3.0, 4.0]]), "Give the runs by name"),
    ],
)
def test_what_is_no_score_is_refused_in_a_line(use, message):
    with pytest.raises(ValueError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)
