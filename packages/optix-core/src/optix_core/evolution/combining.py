"""Several distributions over actions as one, from which a valid action can always be drawn and judged.

Discrete: the weighted sum of log-probabilities, normalised again (Wiering and van Hasselt 2008, "Ensemble algorithms in
reinforcement learning", their Boltzmann multiplication). Continuous: the weighted mean of the means before any
squashing, where the members agree; between two that contradict each other lies an action that neither wants, so that
then one member decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from optix_core.policies.heads import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    Head,
    MultiCategorical,
    SquashedGaussian,
)
from optix_core.policies.ranges import fitted, reach
from optix_protocol import ActionDistribution, Array

FLOOR = math.log(1e-6)
"""No member's log-probability counts as less: nobody has a veto by being sure."""

AGREEMENT = 0.25
"""Members agree where the weighted deviation of their actions is at most this, where the range is -1 to 1."""

LEAST_STD = 1e-6
_EDGE = 1e-6
_LOG_2PI = math.log(2 * math.pi)

Judge = Callable[[Array, Array], Array]
"""From rows ``[n]`` of a batch and actions ``[n, *act]`` to the values ``[n]`` of these."""


# ---- discrete --------------------------------------------------------------------------------------------------------


def combined_log_probs(log_probs: Sequence[Array], weights: Sequence[float], parts: tuple[int, ...]) -> Array:
    """Return ``log softmax(sum_i w_i log p_i)`` ``[B, A]``, normalised within each part.

    Args:
        log_probs: ``[B, A]`` of each member; minus infinity counts as :data:`FLOOR`.
        weights: of each member, adding up to 1.
        parts: choices of each discrete action; ``A`` is their sum.
    """
    total = sum(w * np.maximum(np.asarray(p, np.float64), FLOOR) for w, p in zip(weights, log_probs, strict=True))
    return _normalised(np.asarray(total), parts)


def _normalised(logits: Array, parts: tuple[int, ...]) -> Array:
    pieces = []
    for piece in np.split(logits, np.cumsum(parts)[:-1], axis=1):
        shifted = piece - piece.max(axis=1, keepdims=True)
        pieces.append(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    return np.concatenate(pieces, axis=1)


@dataclass(frozen=True, kw_only=True)
class DiscreteCombination:
    """Members with discrete actions as one distribution.

    Attributes:
        head: of these actions, from log-probabilities.
        parts: choices of each.
    """

    head: Categorical | MultiCategorical | Bernoulli
    parts: tuple[int, ...]

    def combine(
        self, distributions: Sequence[ActionDistribution], weights: Sequence[float], mask: Array | None = None
    ) -> Array:
        """Return log-probabilities ``[B, A]``, minus infinity where a mask ``[B, A]`` does not allow an action."""
        log_probs = combined_log_probs([_known(d.log_probs) for d in distributions], weights, self.parts)
        return log_probs if mask is None else _normalised(np.where(mask, log_probs, -np.inf), self.parts)

    def greedy(self, log_probs: Array) -> Array:
        """Return the most probable actions ``[B, *act]``."""
        return self.head.greedy(self._outputs(log_probs))

    def sample(self, log_probs: Array, rng: np.random.Generator) -> Array:
        """Draw actions ``[B, *act]``."""
        return self.head.sample(self._outputs(log_probs).astype(np.float32), rng)

    def log_prob(self, log_probs: Array, actions: Array) -> Array:
        """Return the log-probability ``[B]`` of actions ``[B, *act]``: the sum over their parts."""
        flat = np.asarray(actions).reshape(len(log_probs), -1).astype(np.int64)
        start = getattr(self.head, "start", 0)
        columns = flat - np.asarray(start) + np.cumsum((0, *self.parts[:-1]))
        found: Array = np.take_along_axis(log_probs, columns, axis=1).sum(axis=1)
        return found

    def _outputs(self, log_probs: Array) -> Array:
        if not isinstance(self.head, Bernoulli):
            return log_probs
        on, off = log_probs[:, 1::2], log_probs[:, ::2]
        with np.errstate(invalid="ignore"):
            log_odds: Array = np.clip(np.nan_to_num(on - off), -1e8, 1e8)
        return log_odds


# ---- continuous ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class Gaussian:
    """A Gaussian for every row of a batch, in units where the range is -1 to 1, before any squashing.

    Attributes:
        mean: ``[B, D]``.
        std: ``[B, D]``.
        agrees: bool ``[B]``, whether the members agreed, and this is their mean.
    """

    mean: Array
    std: Array
    agrees: Array


@dataclass(frozen=True, kw_only=True)
class ContinuousCombination:
    """Members with continuous actions as one distribution.

    Attributes:
        head: of these actions; its range, and whether tanh leads into it.
    """

    head: DiagonalGaussian | SquashedGaussian

    @property
    def squashes(self) -> bool:
        """Whether actions are drawn before tanh."""
        return isinstance(self.head, SquashedGaussian)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Smallest and largest actions ``[D]`` in units of the range; infinite where there is none."""
        centre, scale = self.head.affine
        low, high = reach(self.head.low, self.head.high, self.head.dtype)
        return (low - centre) / scale, (high - centre) / scale

    def combine(
        self, distributions: Sequence[ActionDistribution], weights: Sequence[float], judge: Judge | None = None
    ) -> Gaussian:
        """Return the members' mean where they agree, else the member that the critic values most.

        Args:
            distributions: of the members.
            weights: of each, adding up to 1.
            judge: values actions by a critic that is the same for all; None decides for the largest weight.
        """
        centre, scale = self.head.affine
        w = np.asarray(weights, np.float64)[:, None, None]
        means = np.stack([(np.asarray(_known(d.mean), np.float64) - centre) / scale for d in distributions])
        stds = np.stack([np.asarray(_known(d.std), np.float64) / scale for d in distributions])
        stds = np.maximum(stds, LEAST_STD)
        if not self.squashes:
            low, high = self.bounds
            means = np.clip(means, low, high)
        shown = np.tanh(means) if self.squashes else means
        deviation = np.sqrt((w * np.square(shown - (w * shown).sum(0))).sum(0))
        agrees: Array = (deviation <= AGREEMENT).all(axis=1)
        mean, std = (w * means).sum(0), np.sqrt((w * np.square(stds)).sum(0))
        rows = np.flatnonzero(~agrees)
        if len(rows):
            chosen = self._chosen(means[:, rows], rows, np.asarray(weights), judge)
            mean[rows], std[rows] = means[chosen, rows], stds[chosen, rows]
        return Gaussian(mean=mean, std=std, agrees=agrees)

    def _chosen(self, means: Array, rows: Array, weights: Array, judge: Judge | None) -> Array:
        """Return which member decides in each row ``[n]``."""
        if judge is None:
            return np.full(len(rows), int(np.argmax(weights)))
        values = np.stack([judge(rows, self._to_range(member)) for member in means])
        values[weights <= 0] = -np.inf
        best: Array = values.argmax(axis=0)
        return best

    def greedy(self, gaussian: Gaussian) -> Array:
        """Return the actions of the means ``[B, *act]``, within the range."""
        return self._to_range(gaussian.mean)

    def sample(self, gaussian: Gaussian, rng: np.random.Generator) -> Array:
        """Draw actions ``[B, *act]`` within the range: without tanh, from the Gaussian's part that lies in it."""
        mean, std = gaussian.mean, gaussian.std
        if self.squashes:
            return self._to_range(mean + std * rng.standard_normal(mean.shape))
        low, high = ((bound - mean) / std for bound in self.bounds)
        below, above = ndtr(low), ndtr(high)
        z = ndtri(below + (above - below) * rng.random(mean.shape))
        return self._to_range(mean + std * np.clip(z, low, high))

    def log_prob(self, gaussian: Gaussian, actions: Array) -> Array:
        """Return the log-density ``[B]`` of actions ``[B, *act]``, in units where the range is -1 to 1."""
        centre, scale = self.head.affine
        unit = (np.asarray(actions, np.float64).reshape(gaussian.mean.shape) - centre) / scale
        mean, std = gaussian.mean, gaussian.std
        if self.squashes:
            unit = np.clip(unit, _EDGE - 1.0, 1.0 - _EDGE)
            volume = np.log1p(-np.square(unit))
            unit = np.arctanh(unit)
        else:
            low, high = ((bound - mean) / std for bound in self.bounds)
            volume = np.log(np.maximum(ndtr(high) - ndtr(low), np.finfo(np.float64).tiny))
        found: Array = (-0.5 * np.square((unit - mean) / std) - np.log(std) - 0.5 * _LOG_2PI - volume).sum(axis=1)
        return found

    def _to_range(self, unit: Array) -> Array:
        centre, scale = self.head.affine
        low, high = self.head.low, self.head.high
        actions = (np.tanh(unit) if self.squashes else unit) * scale + centre
        found: Array = fitted(actions.astype(np.float32), low, high, self.head.dtype)
        return found.reshape(-1, *self.head.shape)


Combination = DiscreteCombination | ContinuousCombination


def combination_for(head: Head, num_log_probs: int) -> Combination:
    """Return how to combine members whose actions come from such a head.

    Args:
        head: of the primary agent.
        num_log_probs: log-probabilities ``A`` of its distribution; 0 for continuous actions.
    """
    if isinstance(head, DiagonalGaussian | SquashedGaussian):
        return ContinuousCombination(head=head)
    if isinstance(head, EpsilonGreedy):
        head = Categorical(start=head.start)
    if isinstance(head, MultiCategorical):
        return DiscreteCombination(head=head, parts=head.nvec)
    parts = (2,) * (num_log_probs // 2) if isinstance(head, Bernoulli) else (num_log_probs,)
    return DiscreteCombination(head=head, parts=parts)


def _known(array: Array | None) -> Array:
    assert array is not None
    return array
