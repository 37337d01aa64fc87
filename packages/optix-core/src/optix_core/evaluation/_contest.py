"""What is known of a few policies while they play against each other, and what more episodes would be worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optix_core.evaluation.smoothing import Belief, FloatArray


class Contest:
    """A joint normal belief about the policies' true scores, updated by rounds on common seeds.

    A return is modelled as ``policy + seed + rest``. The seeds of a round are easy or hard for all its players alike;
    only the variance of the rest blurs the comparison. Both variances come from a two-way analysis of variance.

    Args:
        belief: about the ``K`` policies, before the first round.
        episode_variance: of one episode's return, as far as known before the first round.
        seed: of the normal numbers behind :meth:`expected_gain`.
    """

    NUM_FUTURES = 256
    """Sampled outcomes behind an expected gain; the same ones for every question, so that answers compare."""

    def __init__(self, belief: Belief, episode_variance: float, *, seed: int) -> None:
        self.belief = belief
        self._rest = _PooledVariance(episode_variance)
        self._seeds = _PooledVariance(0.0)
        half = np.random.default_rng(seed).normal(size=(self.NUM_FUTURES // 2, len(belief.mean)))
        self._futures = np.concatenate([half, -half])  # antithetic: a lucky draw meets its unlucky twin

    @property
    def episode_std(self) -> float:
        """Standard deviation of one episode's return, for a given policy and over all seeds."""
        return math.sqrt(self._rest.value + self._seeds.value)

    def ranking(self) -> list[int]:
        """Return the policies by expected true score, best first; equals keep their order."""
        return [int(index) for index in np.argsort(-self.belief.mean, kind="stable")]

    def observe(self, players: Sequence[int], returns: FloatArray) -> None:
        """Learn from a round.

        Args:
            players: who played, at least two.
            returns: ``[players, episodes]``, at least two episodes each; a column is one seed.
        """
        count, episodes = returns.shape
        means, by_seed = returns.mean(axis=1), returns.mean(axis=0)
        rest = returns - means[:, None] - by_seed + by_seed.mean()
        freedom = (count - 1) * (episodes - 1)
        self._rest.add(float((rest**2).sum()), freedom)
        shared = float(by_seed.var(ddof=1)) - float((rest**2).sum()) / freedom / count
        self._seeds.add(max(0.0, shared) * (episodes - 1), episodes - 1)
        mean, covariance = self.belief.mean, self.belief.covariance
        gain = self._gain(players, episodes)
        self.belief = Belief(
            mean=mean + gain @ (means - mean[players]),
            covariance=covariance - gain @ covariance[players],
        )

    def best_round(self, episodes: int, *, min_episodes: int) -> list[int]:
        """Return the players who make the most of a number of episodes that they share equally.

        Args:
            episodes: of all players together, at least ``2 * min_episodes``.
            min_episodes: that each player must get.
        """
        ranking = self.ranking()
        counts = range(2, min(len(ranking), episodes // min_episodes) + 1)
        count = max(counts, key=lambda count: self.expected_gain(ranking[:count], episodes // count))
        return ranking[:count]

    def expected_gain(self, players: Sequence[int], episodes: int) -> float:
        """Return by how much the true score of the choice can be expected to rise if these play so many episodes each.

        The Bayesian value of sample information: ``E[max_k m'_k] - max_k m_k``, m and m' being the means of the belief
        now and afterwards (Raiffa and Schlaifer 1961). Everyone's m' moves, since neighbours in time vary together.
        """
        moved = self._gain(players, episodes) @ self.belief.covariance[players]
        variances, axes = np.linalg.eigh((moved + moved.T) / 2)
        moves = self._futures * np.sqrt(variances.clip(min=0.0)) @ axes.T
        best = int(np.argmax(self.belief.mean))
        # The best one's own move has mean 0; taking it off removes most of the sampling error.
        ahead = self.belief.mean - self.belief.mean[best] + moves - moves[:, [best]]
        return float(ahead.max(axis=1).mean())

    def _gain(self, players: Sequence[int], episodes: int) -> NDArray[np.floating[Any]]:
        """Weights ``[K, players]`` with which a round's means move the belief (Kalman gain)."""
        covariance = self.belief.covariance[:, players]
        blur = (self._rest.value * np.eye(len(players)) + self._seeds.value) / episodes
        gain: NDArray[np.floating[Any]] = np.linalg.lstsq(covariance[players] + blur, covariance.T, rcond=None)[0].T
        return gain


class _PooledVariance:
    """A variance pooled over rounds by degrees of freedom; the initial value counts as a few."""

    INITIAL_FREEDOM = 4

    def __init__(self, initial: float) -> None:
        self._sum = initial * self.INITIAL_FREEDOM
        self._freedom = self.INITIAL_FREEDOM

    def add(self, sum_of_squares: float, freedom: int) -> None:
        self._sum += sum_of_squares
        self._freedom += freedom

    @property
    def value(self) -> float:
        return self._sum / self._freedom
