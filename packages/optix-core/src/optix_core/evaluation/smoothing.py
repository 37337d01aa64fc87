"""Smoothing the scores of one training run along time, before any of them is believed.

A single noisy score flatters whoever got it by luck. Policies that follow each other in one run are similar, so that
their neighbours' scores tell what part of a score was luck. The model is

    score_k = mu_k + e_k,    mu_k = m + f(t_k) + j_k,

with the common level ``m`` (flat prior), an Ornstein-Uhlenbeck process ``f`` (deviations that die out over a
correlation time), independent deviations ``j_k`` of each policy, and sampling noise ``e_k`` of known variance. The
posterior of ``mu`` is empirical Bayes: Morris (1983), "Parametric empirical Bayes inference"; the process is that of
Rasmussen and Williams (2006), chapters 2 and 5, with restricted likelihood for the unknown level. Instead of one
best set of its three parameters, all sets on a grid are averaged by their likelihood, so that a short run is not
over-interpreted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]

# Variance of f as a multiple of the scores' variance, correlation time in steps between scores, variance of j as a
# share of that of f.
_SIGNAL = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_CORRELATION = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_INDEPENDENT = (0.0, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What is known of the true scores of ``K`` policies: a joint normal distribution.

    Attributes:
        mean: ``[K]`` expected true score.
        covariance: ``[K, K]`` of the true scores; neighbours in time vary together.
    """

    mean: FloatArray
    covariance: FloatArray

    def of(self, indices: ArrayLike) -> Belief:
        """Return the belief about some of the policies only."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Belief(mean=self.mean[chosen], covariance=self.covariance[np.ix_(chosen, chosen)])


def smooth_scores(scores: ArrayLike, variances: ArrayLike, times: ArrayLike | None = None) -> Belief:
    """Return what noisy scores along one training run say of the true ones.

    Args:
        scores: ``[K]`` scores in order of time.
        variances: ``[K]`` sampling variance of each score (squared standard error); broadcast from one number.
        times: ``[K]`` increasing moments (environment steps, say); by default equally spaced.

    Returns:
        The belief about the true scores. Where all scores are equal it is certain: there is no sign of a difference.

    Raises:
        ValueError: no scores, NaN or infinite ones, negative variances, or times that do not increase.
    """
    y = np.asarray(scores, dtype=np.float64)
    noise = np.broadcast_to(np.asarray(variances, dtype=np.float64), y.shape)
    if y.ndim != 1 or len(y) == 0 or not np.isfinite(y).all():
        raise ValueError("scores must be a non-empty vector of finite numbers.")
    if not (np.isfinite(noise).all() and (noise >= 0).all()):
        raise ValueError("variances must be finite and not negative.")
    gaps = _gaps(len(y), times)
    spread = float(y.var())
    if spread <= (1e-9 * float(np.abs(y).max())) ** 2:
        return Belief(mean=y.copy(), covariance=np.zeros((len(y), len(y))))
    grid = np.array(list(itertools.product(_SIGNAL, _CORRELATION, _INDEPENDENT)))
    signal, correlation, independent = spread * grid[:, 0], grid[:, 1], spread * grid[:, 0] * grid[:, 2]
    log_likelihood = _log_likelihood(y, noise, gaps, signal, correlation, independent)
    weights = np.exp(log_likelihood - log_likelihood.max())
    weights /= weights.sum()
    position = np.concatenate([[0.0], np.cumsum(gaps)])
    distance = np.abs(position[:, None] - position)
    chosen = np.flatnonzero(weights > 0.02 * weights.max())
    weights = weights[chosen] / weights[chosen].sum()
    means, second = np.zeros((len(chosen), len(y))), np.zeros((len(y), len(y)))
    for row, index in enumerate(chosen):
        prior = signal[index] * np.exp(-distance / correlation[index]) + independent[index] * np.eye(len(y))
        means[row], covariance = _posterior(y, noise, prior)
        second += weights[row] * covariance
    mean = weights @ means
    second += (means - mean).T @ (weights[:, None] * (means - mean))
    return Belief(mean=mean, covariance=second)


def _gaps(length: int, times: ArrayLike | None) -> FloatArray:
    """Distances in time between neighbours, in units of the median distance."""
    if times is None or length == 1:
        return np.ones(length - 1)
    gaps = np.diff(np.asarray(times, dtype=np.float64))
    if len(gaps) != length - 1 or not (gaps > 0).all():
        raise ValueError("times must increase, one for each score.")
    scaled: FloatArray = gaps / np.median(gaps)
    return scaled


def _log_likelihood(
    y: FloatArray,
    noise: FloatArray,
    gaps: FloatArray,
    signal: FloatArray,
    correlation: FloatArray,
    independent: FloatArray,
) -> FloatArray:
    """Restricted log-likelihood of each parameter set, by one Kalman filter over all sets at once: O(K) each.

    The unknown level is taken out by filtering a series of ones alongside (generalised least squares).
    """
    state, state_of_ones, variance = np.zeros_like(signal), np.zeros_like(signal), signal.copy()
    log_det, yy, y1, ones = (np.zeros_like(signal) for _ in range(4))
    for index, value in enumerate(y):
        total = variance + independent + noise[index]
        error, error_of_ones = value - state, 1.0 - state_of_ones
        log_det += np.log(total)
        yy += error**2 / total
        y1 += error * error_of_ones / total
        ones += error_of_ones**2 / total
        if index < len(gaps):
            gain = variance / total
            decay = np.exp(-gaps[index] / correlation)
            state = decay * (state + gain * error)
            state_of_ones = decay * (state_of_ones + gain * error_of_ones)
            variance = decay**2 * variance * (1 - gain) + signal * (1 - decay**2)
    result: FloatArray = -0.5 * (log_det + np.log(ones) + yy - y1**2 / ones)
    return result


def _posterior(y: FloatArray, noise: FloatArray, prior: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of ``mu`` with a flat prior on the level (universal kriging)."""
    solved = np.linalg.solve(prior + np.diag(noise), np.column_stack([prior, y, np.ones_like(y)]))
    gain, weighted_y, weighted_ones = solved[:, :-2], solved[:, -2], solved[:, -1]
    precision = weighted_ones.sum()
    level = weighted_y.sum() / precision
    mean = level + prior @ (weighted_y - level * weighted_ones)
    rest = 1.0 - prior @ weighted_ones
    covariance = prior - prior @ gain + np.outer(rest, rest) / precision
    return mean, (covariance + covariance.T) / 2
