"""Intervals cover what they say: simulations, exact references, and what a width of 0 may mean."""

import numpy as np
import pytest
from scipy.stats import beta, binom, t, trim_mean

from optix_core.evaluation import could_differ, iqm, mean, probability_of_improvement, stratified_bootstrap, summarise
from optix_core.evaluation.intervals import share_interval, student

KINDS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t with 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, size=shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "beta(5, 1)": lambda rng, shape: rng.beta(5, 1, shape),
    "three values": lambda rng, shape: rng.integers(3, size=shape) / 2,
    "clipped": lambda rng, shape: rng.normal(size=shape).clip(-1, 0.5),
    "CartPole, 1 % fall": lambda rng, shape: np.where(rng.random(shape) < 0.01, rng.uniform(100, 499, shape), 500.0),
    "CartPole, 3 % fall": lambda rng, shape: np.where(rng.random(shape) < 0.03, rng.uniform(100, 499, shape), 500.0),
    "half succeed": lambda rng, shape: (rng.random(shape) < 0.5).astype(float),
    "95 % succeed": lambda rng, shape: (rng.random(shape) < 0.95).astype(float),
    "99 % succeed": lambda rng, shape: (rng.random(shape) < 0.99).astype(float),
}


def coverage(kind, statistic, size, samples=250, confidence=0.95):
    """Return the share of samples that vary whose interval covers the truth, and how many there were."""
    rng = np.random.default_rng([size, list(KINDS).index(kind)])
    truth = float(statistic(KINDS[kind](rng, 100_000)))
    covered = []
    for _ in range(20):
        for values in KINDS[kind](rng, (samples, size)):
            if np.ptp(values) > 0 and len(covered) < samples:
                interval = stratified_bootstrap(values, statistic, confidence=confidence)
                covered.append(interval.low - 1e-3 <= truth <= interval.high + 1e-3)
        if len(covered) >= samples or np.mean(KINDS[kind](rng, (50, size)) == truth) > 0.9:
            break
    return np.mean(covered), len(covered)


@pytest.mark.parametrize("size", [3, 5, 20, 100])
@pytest.mark.parametrize("statistic", [mean, iqm])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interval_that_is_given_covers_as_often_as_it_says(kind, statistic, size):
    share, samples = coverage(kind, statistic, size)
    assert share >= 0.93 - 1.65 * np.sqrt(0.07 * 0.93 / samples)  # the luck of a simulation of this length


@pytest.mark.parametrize("size", [3, 20, 100])
def test_intervals_are_no_wider_than_they_must_be(size):
    """An interval that always covers would be easy: at 50 % confidence, half the normal samples are covered."""
    share, _ = coverage("normal", mean, size, confidence=0.5)
    assert share < (0.75 if size == 3 else 0.57)
    values = np.random.default_rng(1).normal(size=size)
    interval = stratified_bootstrap(values, mean)
    exact = t.ppf(0.975, size - 1) * values.std(ddof=1) / np.sqrt(size)
    assert (interval.high - interval.low) / 2 == pytest.approx(exact * (1 + 1.7 / (size - 1) ** 1.5))


def test_one_value_has_no_interval_and_equal_ones_say_what_could_differ():
    assert (summarise([7.0])["ci_low"], summarise([7.0])["ci_high"]) == (None, None)
    assert "could_differ" not in summarise([7.0])
    one = stratified_bootstrap([7.0], iqm)
    assert (one.estimate, one.low, one.high) == (7, None, None)
    assert stratified_bootstrap([[1.0, 2.0, 3.0], [5.0]], mean).low is None
    same = summarise([500.0] * 100)
    assert same["ci_low"] == same["ci_high"] == 500
    assert same["could_differ"] == pytest.approx(0.0295, abs=1e-4)
    assert binom.pmf(0, 100, same["could_differ"]) == pytest.approx(0.05)
    assert binom.pmf(0, 7, could_differ(7, confidence=0.8)) == pytest.approx(0.2)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 1.0), (213.0, 500.0)])
def test_two_values_get_the_binomial_interval_of_their_share(scale):
    low, high = scale
    values = np.where(np.arange(100) < 30, high, low)
    found = stratified_bootstrap(values, mean)
    exact = np.array([beta.ppf(0.025, 30, 71), beta.ppf(0.975, 31, 70)])
    assert [found.low, found.high] == pytest.approx(low + (high - low) * exact, abs=1e-9 * high)


@pytest.mark.parametrize(("successes", "trials"), [(1, 3), (19, 20), (97, 100), (2, 5)])
def test_the_ends_of_the_binomial_interval_are_where_such_a_sample_becomes_rare(successes, trials):
    values = np.arange(trials) < successes
    found = stratified_bootstrap(values.astype(float), mean)
    plain = share_interval(successes, trials, 0.95)
    for share, usual, rare in (
        (found.low, plain[0], binom.sf(successes - 1, trials, found.low) - found.low**trials),
        (found.high, plain[1], binom.cdf(successes, trials, found.high) - (1 - found.high) ** trials),
    ):
        if 0 < share < 1 and share != pytest.approx(usual, abs=1e-12):  # given that both outcomes were seen
            both = 1 - share**trials - (1 - share) ** trials
            assert rare / both == pytest.approx(0.025, abs=1e-6)
    assert found.low <= plain[0] < successes / trials < plain[1] <= found.high
    assert (found.low, found.high) != plain


def test_the_share_interval_is_clopper_and_pearsons():
    assert share_interval(3, 10, 0.9) == pytest.approx((beta.ppf(0.05, 3, 8), beta.ppf(0.95, 4, 7)))
    assert share_interval(0, 10, 0.95)[0] == 0 and share_interval(10, 10, 0.95)[1] == 1


def test_nothing_lies_beyond_a_ceiling_that_most_episodes_reach():
    values = np.where(np.arange(20) < 3, [480.0, 300.0, 120.0] + [0.0] * 17, 500.0)
    assert stratified_bootstrap(values, mean).high == 500
    assert stratified_bootstrap(-values, mean).low == -500
    assert stratified_bootstrap(values[:6], mean).high > 500  # three of six are no ceiling yet


def test_the_interquartile_mean_has_yuens_standard_error():
    values = np.random.default_rng(2).normal(size=23)
    cut = 23 // 4
    ordered = np.sort(values)
    winsorised = values.clip(ordered[cut], ordered[-cut - 1])
    left = 23 - 2 * cut
    error = np.sqrt(22 * winsorised.var(ddof=1) / (left * (left - 1)))
    found = stratified_bootstrap(values, iqm)
    assert found.estimate == pytest.approx(trim_mean(values, 0.25))
    assert found.high - found.estimate == pytest.approx(student(left - 1, 0.95) * error)


def test_tasks_add_their_variances_and_degrees_of_freedom():
    rng = np.random.default_rng(3)
    tasks = [rng.normal(0, 1, 9), rng.normal(2, 3, 6)]
    parts = [len(task) ** 2 / 15**2 * task.var(ddof=1) / len(task) for task in tasks]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 8 + parts[1] ** 2 / 5)
    found = stratified_bootstrap(tasks, mean)
    assert found.high - found.estimate == pytest.approx(student(freedom, 0.95) * np.sqrt(sum(parts)))


@pytest.mark.parametrize("statistic", [mean, iqm, lambda values: np.median(values, axis=-1)])
def test_many_tasks_make_few_runs_go_far(statistic):
    """Three runs of 26 tasks are 78 values, not three; the interval neither knows nor needs the number of resamples."""
    rng = np.random.default_rng(4)
    levels = np.linspace(0, 2, 26)
    draws = [levels + rng.normal(size=(3, 26)) for _ in range(150)]
    truth = float(statistic((levels + rng.normal(size=(20_000, 26))).ravel()))
    found = [stratified_bootstrap(scores, statistic, resamples=300, seed=i) for i, scores in enumerate(draws)]
    width = np.mean([interval.high - interval.low for interval in found])
    spread = np.std([interval.estimate for interval in found])
    assert np.mean([interval.low <= truth <= interval.high for interval in found]) >= 0.9
    assert 0.85 < width / (2 * 1.96 * spread) < 1.35
    few, many = (stratified_bootstrap(draws[0], statistic, resamples=n, seed=1) for n in (500, 20_000))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(1, abs=0.15)


def test_success_rates_of_several_tasks_are_pooled():
    scores = np.tile([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]], (4, 1))
    found = stratified_bootstrap(scores, mean)
    assert [found.low, found.high] == pytest.approx(share_interval(24, 36, 0.95), abs=1e-3)


SIDES = {
    "normal": (lambda rng, n: rng.normal(0.5, 1, n), lambda rng, n: rng.normal(0, 1, n), 0.6382),
    "far apart": (lambda rng, n: rng.normal(2.5, 1, n), lambda rng, n: rng.normal(0, 1, n), 0.9615),
    "unequal spread": (lambda rng, n: rng.normal(0, 10, n), lambda rng, n: rng.normal(0, 1, n), 0.5),
    "two peaks": (
        lambda rng, n: np.where(rng.random(n) < 0.5, 3, -3) + rng.normal(size=n),
        lambda rng, n: rng.normal(size=n),
        0.5,
    ),
    "successes": (lambda rng, n: rng.random(n) < 0.9, lambda rng, n: rng.random(n) < 0.5, 0.7),
}


@pytest.mark.parametrize("sizes", [(3, 3), (5, 5), (3, 20), (20, 20), (100, 100)])
@pytest.mark.parametrize("sides", SIDES)
def test_the_probability_of_improvement_is_covered_whatever_the_scores_are_like(sides, sizes):
    better, worse, truth = SIDES[sides]
    rng = np.random.default_rng(5)
    found = [
        probability_of_improvement(better(rng, sizes[0]).astype(float), worse(rng, sizes[1]).astype(float))
        for _ in range(200)
    ]
    assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.93 - 1.65 * np.sqrt(0.07 * 0.93 / 200)
    if min(sizes) >= 20:
        assert np.mean([i.high - i.low for i in found]) < 2 / np.sqrt(min(sizes))


def test_who_wins_every_time_does_not_win_for_sure():
    few = probability_of_improvement([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    assert few.estimate == few.high == 1 and 0.2 < few.low < 0.4
    many = probability_of_improvement(np.arange(100) + 100.0, np.arange(100.0))
    assert many.high == 1 and 0.95 < many.low < 0.97
    one = probability_of_improvement([4.0], [1.0, 2.0, 3.0])
    assert (one.estimate, one.low, one.high) == (1, 0, 1)
    tasks = probability_of_improvement(np.ones((3, 10)), np.zeros((3, 10)))
    assert few.low < tasks.low < 1
