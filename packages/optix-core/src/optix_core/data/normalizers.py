"""Running statistics that put observations and rewards on a common scale."""

from __future__ import annotations

from typing import Any

import numpy as np

from optix_core.errors import ConfigError, one_of
from optix_protocol import Array, StateTree


class RunningMeanStd:
    """Mean and variance of everything seen so far, merged batch by batch (Chan, Golub and LeVeque 1983).

    Attributes:
        mean: ``[*shape]`` float64.
        var: ``[*shape]`` float64, the population variance; 1 before the first batch.
        count: samples seen.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.mean: Array = np.zeros(shape)
        self.var: Array = np.ones(shape)
        self.count = 0

    def update(self, batch: Array) -> None:
        """Take in samples ``[B, *shape]``; an empty batch changes nothing."""
        size = len(batch)
        if not size:
            return
        mean = batch.mean(axis=0, dtype=np.float64)
        var = batch.var(axis=0, dtype=np.float64)
        total = self.count + size
        delta = mean - self.mean
        self.var = (self.var * self.count + var * size + delta**2 * self.count * size / total) / total
        self.mean = self.mean + delta * (size / total)
        self.count = total

    def state(self) -> dict[str, Array]:
        """Return a copy as arrays, for a file."""
        return {"mean": np.array(self.mean), "var": np.array(self.var), "count": np.array(self.count)}

    def restore(self, state: StateTree) -> None:
        """Become the statistics that :meth:`state` returned."""
        self.mean, self.var = np.array(state["mean"]), np.array(state["var"])
        self.count = int(state["count"])


class ObsNormalizer:
    """Observations shifted and scaled to mean 0 and variance 1, clipped.

    Args:
        shape: shape of one observation, or its length.
        clip: largest absolute value that leaves the normaliser.
        epsilon: added to the variance.
        obs_shape: another name of ``shape``.

    Raises:
        ConfigError: (a ``ValueError``) no shape, or two.
    """

    def __init__(
        self,
        shape: tuple[int, ...] | int | None = None,
        *,
        clip: float = 10.0,
        epsilon: float = 1e-8,
        obs_shape: tuple[int, ...] | int | None = None,
    ) -> None:
        known = one_of(None, shape=shape, obs_shape=obs_shape)
        if known is None:
            raise ConfigError("ObsNormalizer needs the shape of one observation: shape=(4,).")
        self.stats = RunningMeanStd((known,) if isinstance(known, int) else tuple(known))
        self.clip = clip
        self.epsilon = epsilon
        self._refresh()

    def __call__(self, observations: Array) -> Array:
        """Return ``[B, *shape]`` float32; the statistics stay as they are.

        Of float64 observations the mean is taken in float64, so that nothing small beside a large offset is lost.
        """
        if observations.dtype == np.float64:
            scaled = ((observations - self.stats.mean) * self._scale).astype(np.float32)
        else:
            scaled = (observations - self._shift) * self._scale
        return np.clip(scaled, -self.clip, self.clip, out=scaled)

    def normalize(self, observations: Any) -> Array:
        """Return one observation ``[*shape]`` or several ``[B, *shape]`` normalised; the statistics stay."""
        normalised: Array = self(np.asarray(observations)).astype(np.float32, copy=False)
        return normalised

    def update(self, observations: Any) -> None:
        """Take observations ``[B, *shape]``, or a single one, into the statistics."""
        observations = np.asarray(observations)
        self.stats.update(observations[None] if observations.ndim == self.stats.mean.ndim else observations)
        self._refresh()

    def state(self) -> dict[str, Array]:
        """Return the statistics as arrays."""
        return self.stats.state()

    def restore(self, state: StateTree) -> None:
        """Become the normaliser whose :meth:`state` this is."""
        self.stats.restore(state)
        self._refresh()

    def copy(self) -> ObsNormalizer:
        """Return a normaliser that later updates of this one do not touch."""
        twin = ObsNormalizer(self.stats.mean.shape, clip=self.clip, epsilon=self.epsilon)
        twin.restore(self.state())
        return twin

    def _refresh(self) -> None:
        self._shift = self.stats.mean.astype(np.float32)
        self._scale = (1.0 / np.sqrt(self.stats.var + self.epsilon)).astype(np.float32)


class RewardNormalizer:
    """Rewards divided by the standard deviation of the discounted return (Engstrom et al. 2020), clipped.

    The running return starts anew at every episode end and is carried from window to window.

    Args:
        gamma: discount of the running return; may be changed later. In an agent of its own making it is the agent's.
        clip: largest absolute reward that leaves the normaliser.
        epsilon: added to the variance.
    """

    def __init__(self, gamma: float = 0.99, clip: float = 10.0, *, epsilon: float = 1e-8) -> None:
        self.gamma = gamma
        self.clip = clip
        self.epsilon = epsilon
        self.stats = RunningMeanStd()
        self._running: Array = np.zeros(0)

    def __call__(self, rewards: Array, done: Array, valid: Array) -> Array:
        """Take in a window ``[T, N]`` and return its rewards normalised, float32.

        Args:
            rewards: ``[T, N]`` raw rewards.
            done: ``[T, N]`` bool, an episode ended here.
            valid: ``[T, N]`` bool; other rows leave running returns and statistics alone.
        """
        if self._running.shape != rewards.shape[1:]:
            self._running = np.zeros(rewards.shape[1:])
        returns = np.empty(rewards.shape)
        for t in range(len(rewards)):
            self._running = np.where(valid[t], self.gamma * self._running + rewards[t], self._running)
            returns[t] = self._running
            self._running = np.where(done[t], 0.0, self._running)
        self.stats.update(returns[valid])
        return np.asarray(self.normalize(rewards))

    def step(self, rewards: Any, done: Any = False) -> Any:
        """Take in the rewards of one step and return them normalised.

        Args:
            rewards: of one environment, a number, or of several, ``[N]``.
            done: whether an episode ended with this step, a bool or ``[N]``.

        Returns:
            A number, or ``[N]`` float32.
        """
        latest = np.atleast_1d(np.asarray(rewards, np.float64))
        if self._running.shape != latest.shape:
            self._running = np.zeros(latest.shape)
        self._running = self.gamma * self._running + latest
        self.stats.update(self._running)
        self.reset(done)
        return self.normalize(rewards)

    def normalize(self, rewards: Any, *, num_steps: int = 1) -> Any:
        """Return rewards of any shape normalised, float32, a number for a number; nothing is taken in.

        Args:
            rewards: of single steps, or sums.
            num_steps: how many steps such a sum is over: its largest absolute value is so many times ``clip``.
        """
        scaled, limit = np.asarray(rewards) / np.sqrt(self.stats.var + self.epsilon), self.clip * num_steps
        normalised: Array = np.clip(scaled, -limit, limit).astype(np.float32)
        return normalised if np.ndim(rewards) else float(normalised)

    def reset(self, done: Any = True) -> None:
        """Begin the running returns anew, where ``done`` (a bool or ``[N]``) is True; the statistics stay."""
        self._running = np.where(np.atleast_1d(done), 0.0, self._running)

    def state(self) -> dict[str, Array]:
        """Return statistics and running returns as arrays."""
        return {**self.stats.state(), "running": self._running.copy()}

    def restore(self, state: StateTree) -> None:
        """Become the normaliser whose :meth:`state` this is."""
        self.stats.restore(state)
        self._running = np.array(state["running"])
