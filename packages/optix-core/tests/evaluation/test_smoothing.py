"""Smoothing against dense linear algebra, and by what it promises."""

import numpy as np
import pytest

from optix_core.evaluation import smooth_scores
from optix_core.evaluation.smoothing import _gaps, _log_likelihood, _posterior


def ornstein_uhlenbeck(rng, length, correlation_time):
    decay = np.exp(-1 / correlation_time)
    values = np.zeros(length)
    values[0] = rng.normal()
    for i in range(1, length):
        values[i] = decay * values[i - 1] + np.sqrt(1 - decay**2) * rng.normal()
    return values


def test_the_filters_likelihood_is_the_restricted_likelihood_of_the_joint_normal():
    rng = np.random.default_rng(0)
    y, times, noise = rng.normal(3, 2, size=12), np.cumsum(rng.uniform(1, 5, 12)), rng.uniform(0.1, 1, 12)
    parameters = np.array([[1.0, 2.0, 0.0], [0.3, 8.0, 0.2], [2.0, 1.0, 0.5]])
    ours = _log_likelihood(y, noise, _gaps(12, times), *parameters.T)
    unit, ones = np.median(np.diff(times)), np.ones(12)
    for (signal, correlation, independent), value in zip(parameters, ours, strict=True):
        covariance = signal * np.exp(-np.abs(times[:, None] - times) / unit / correlation)
        covariance += np.diag(independent + noise)
        inverse = np.linalg.inv(covariance)
        level = (ones @ inverse @ y) / (ones @ inverse @ ones)
        residual = y - level
        dense = -0.5 * (
            np.linalg.slogdet(covariance)[1] + np.log(ones @ inverse @ ones) + residual @ inverse @ residual
        )
        assert value == pytest.approx(dense)


def test_the_posterior_is_the_conditional_normal_with_a_flat_level():
    rng = np.random.default_rng(1)
    y, noise = rng.normal(size=6), rng.uniform(0.1, 1, 6)
    prior = np.exp(-np.abs(np.subtract.outer(np.arange(6), np.arange(6))) / 2)
    mean, covariance = _posterior(y, noise, prior)
    vague = prior + 1e4  # a flat prior on the level is a very wide one
    gain = vague @ np.linalg.inv(vague + np.diag(noise))
    np.testing.assert_allclose(mean, gain @ y, atol=1e-3)
    np.testing.assert_allclose(covariance, vague - gain @ vague, atol=1e-3)


def test_it_comes_closer_to_the_truth_than_the_scores_and_knows_how_close():
    rng = np.random.default_rng(2)
    ratio, surprise = [], []
    for _ in range(60):
        truth = 0.5 * ornstein_uhlenbeck(rng, 60, 8)
        scores = truth + 0.45 * rng.normal(size=60)
        belief = smooth_scores(scores, 0.45**2)
        ratio.append(np.mean((belief.mean - truth) ** 2) / np.mean((scores - truth) ** 2))
        surprise.append(np.mean((belief.mean - truth) ** 2 / np.diag(belief.covariance)))
    assert np.mean(ratio) < 0.5
    assert np.mean(surprise) == pytest.approx(1, abs=0.2)


def test_pure_noise_is_shrunk_to_its_mean():
    rng = np.random.default_rng(3)
    shrunk = [smooth_scores(rng.normal(size=80), 1.0).mean.std() for _ in range(20)]
    assert np.mean(shrunk) < 0.2


def test_exact_scores_are_kept():
    truth = np.random.default_rng(4).normal(size=15)
    belief = smooth_scores(truth, 0.0)
    np.testing.assert_allclose(belief.mean, truth, atol=1e-6)
    np.testing.assert_allclose(np.diag(belief.covariance), 0, atol=1e-6)


def test_moves_and_scales_with_the_scores():
    scores = np.random.default_rng(5).normal(size=30)
    one, other = smooth_scores(scores, 0.5), smooth_scores(1000 + 300 * scores, 300**2 * 0.5)
    np.testing.assert_allclose(other.mean, 1000 + 300 * one.mean, rtol=1e-6)
    np.testing.assert_allclose(other.covariance, 300**2 * one.covariance, rtol=1e-4, atol=1e-3)


def test_equal_scores_leave_no_doubt():
    belief = smooth_scores([500.0] * 7, 100.0)
    assert belief.mean.tolist() == [500.0] * 7
    assert not belief.covariance.any()


def test_of_some_policies():
    belief = smooth_scores(np.random.default_rng(6).normal(size=9), 0.5)
    some = belief.of([7, 2])
    assert some.mean.tolist() == [belief.mean[7], belief.mean[2]]
    assert some.covariance[0, 1] == belief.covariance[7, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1.0), "non-empty"),
        (([1.0, np.inf], 1.0), "finite"),
        (([1.0, 2.0], -1.0), "negative"),
        (([1.0, 2.0], 1.0, [5, 5]), "increase"),
    ],
)
def test_refuses_what_has_no_meaning(arguments, message):
    with pytest.raises(ValueError, match=message):
        smooth_scores(*arguments)
