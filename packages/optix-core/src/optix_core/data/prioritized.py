"""Prioritised replay (Schaul et al. 2016): what surprised is seen more often, and weighted down for it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from optix_core.data.replay import ReplayBatch, ReplayBuffer
from optix_core.errors import ConfigError
from optix_protocol import Array, StateTree

_FANOUT = 32


class SumTree:
    """Non-negative numbers with their sums, to draw an index with probability proportional to its number.

    A node has 32 children instead of two: all the work on one level is a few NumPy calls, so few levels are what makes
    it fast. Updating and finding ``B`` indices costs ``O(B log capacity)``.

    Args:
        capacity: how many numbers, all 0 at first.
    """

    def __init__(self, capacity: int) -> None:
        self._levels: list[Array] = []  # sums [nodes, 32]: of the leaves first, of the root's children last
        width = capacity
        while not self._levels or width > 1:
            width = -(-width // _FANOUT)
            self._levels.append(np.zeros((width, _FANOUT)))

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return float(self._levels[-1].sum())

    def __getitem__(self, indices: Array) -> Array:
        """Return the numbers at these indices."""
        return self._levels[0].reshape(-1).take(indices)

    def __setitem__(self, indices: Array, values: Array | float) -> None:
        """Set the numbers at these indices; the last value counts where an index comes twice."""
        self._levels[0].reshape(-1)[indices] = values
        for below, level in pairwise(self._levels):
            indices = indices // _FANOUT
            if len(indices) > len(below):
                indices = np.unique(indices)
            # Summed anew from the children, so that rounding errors never pile up.
            level.reshape(-1)[indices] = below.take(indices, axis=0).sum(axis=1)

    def find(self, targets: Array) -> Array:
        """Return for each target ``[B]`` in ``[0, total)`` the index in whose part of the cumulative sum it lies."""
        remaining = targets.astype(np.float64)
        nodes = np.zeros(len(targets), np.int64)
        rows = np.arange(len(targets))
        for level in reversed(self._levels):
            # A target at the very end may round past the last number: then it is the caller's to draw another.
            sums = level.take(nodes, axis=0, mode="clip").cumsum(axis=1)
            child = (sums <= remaining[:, None]).sum(axis=1).clip(max=_FANOUT - 1)
            remaining -= np.where(child > 0, sums[rows, child - 1], 0.0)
            nodes = nodes * _FANOUT + child
        return nodes.clip(max=self._levels[0].size - 1)


class PrioritizedReplayBuffer(ReplayBuffer):
    """Replay with probabilities ``P(i) = p_i^alpha / sum p^alpha`` and weights ``(n P(i))^-beta``, at most 1.

    Priorities are ``p = |temporal-difference error| + epsilon``; a new transition gets the largest seen so far, so that
    everything is looked at soon. Weights are divided by the largest one of the batch. Batches are stratified: one
    transition from each of ``batch_size`` equal parts of the probability (appendix B.2.1 there).

    Args:
        alpha: 0 samples uniformly, 1 in proportion to the priorities.
        beta: how much the weights correct for it, 1 wholly; may be changed.
        epsilon: keeps what is predicted perfectly from being forgotten.
        kwargs: as for :class:`ReplayBuffer`.

    Raises:
        ConfigError: (a ``ValueError``) an ``alpha`` or ``beta`` outside [0, 1].
    """

    def __init__(
        self, *, alpha: float = 0.6, beta: float = 0.4, epsilon: float = 1e-6, capacity: int, **kwargs: Any
    ) -> None:
        super().__init__(capacity=capacity, **kwargs)
        if not (0.0 <= alpha <= 1.0 and 0.0 <= beta <= 1.0):
            raise ConfigError(f"alpha and beta must be within [0, 1], got {alpha} and {beta}.")
        self.alpha = alpha
        self.beta = beta
        self.epsilon = epsilon
        self._tree = SumTree(capacity)  # of p^alpha, 0 for rows that cannot be sampled
        self._largest = 1.0  # of p^alpha

    def sample(self, batch_size: int) -> ReplayBatch:
        """Draw transitions by priority.

        Raises:
            ValueError: the memory holds none.
        """
        if not self._num_ready:
            raise ValueError("The replay memory is empty: add a window before sampling.")
        indices = self._draw(batch_size)
        probabilities = self._tree[indices] / self._tree.total
        weights = (self._num_ready * probabilities) ** -self.beta
        return self._gather(indices, (weights / weights.max()).astype(np.float32))

    def update_priorities(self, indices: npt.NDArray[np.int64], td_errors: Array) -> None:
        """Set the priorities of sampled transitions from their new temporal-difference errors ``[B]`` (any sign)."""
        priorities = (np.abs(td_errors, dtype=np.float64) + self.epsilon) ** self.alpha
        self._largest = max(self._largest, float(priorities.max(initial=0.0)))
        self._tree[indices] = priorities

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that later samples depend on."""
        priorities = self._tree[np.arange(self._num_used)]
        return {**super().state(), "priorities": priorities, "largest_priority": self._largest}

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned, bit for bit."""
        super().restore(state)
        self._tree = SumTree(self.capacity)
        self._tree[np.arange(self._num_used)] = state["priorities"]
        self._largest = float(state["largest_priority"])

    def _draw(self, batch_size: int) -> Array:
        strata = (np.arange(batch_size) + self._rng.random(batch_size)) / batch_size
        indices = self._tree.find(strata * self._tree.total)
        while not (ready := self._tree[indices] > 0.0).all():  # rounding at the border of two numbers
            missing = ~ready
            indices[missing] = self._tree.find(self._rng.random(np.count_nonzero(missing)) * self._tree.total)
        return indices

    def _added(self, slots: Array) -> None:
        self._tree[slots] = self._largest

    def _removed(self, slots: Array) -> None:
        self._tree[slots] = 0.0
