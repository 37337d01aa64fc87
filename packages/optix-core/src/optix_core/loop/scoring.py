"""From windows to scores: the training-window returns that the scheduler sees."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from optix_protocol import EpisodeData


def time_slices(window: EpisodeData, env_steps: int) -> Iterator[EpisodeData]:
    """Cut a window along time into pieces of about ``env_steps`` transitions each.

    A scheduler that tests for trends wants many small disjoint windows, an algorithm may want a few large ones. Every
    episode belongs to the piece in which it ended.

    Args:
        window: arrays ``[T, N, ...]``.
        env_steps: wanted transitions per piece, at least one row.

    Yields:
        Pieces in order of time; the window itself if it is no longer than one and a half pieces.
    """
    T, N = window.rewards.shape
    pieces = max(1, round(T * N / env_steps))
    if pieces == 1:
        yield window
        return
    ends = window.ends[:, 0]
    bounds = np.linspace(0, T, min(pieces, T) + 1).round().astype(int)
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        rows, episodes = slice(start, stop), slice(*np.searchsorted(ends, [start, stop]))
        yield replace(
            window,
            observations=window.observations[rows],
            actions=window.actions[rows],
            rewards=window.rewards[rows],
            terminated=window.terminated[rows],
            truncated=window.truncated[rows],
            valid=window.valid[rows],
            last_observation=window.observations[stop] if stop < T else window.last_observation,
            final_observations=window.final_observations[episodes],
            episode_returns=window.episode_returns[episodes],
            episode_lengths=window.episode_lengths[episodes],
            behaviour_log_probs=None if window.behaviour_log_probs is None else window.behaviour_log_probs[rows],
            intrinsic_rewards=None if window.intrinsic_rewards is None else window.intrinsic_rewards[rows],
        )


class ScoreSmoother:
    """Level of the latest scores: the mean of the last twentieth of them, of 3 at least and 50 at most."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=50)
        self._count = 0

    def update(self, score: float) -> float:
        """Take in a score and return the level."""
        self._recent.append(score)
        self._count += 1
        return self.level

    @property
    def level(self) -> float:
        """The smoothed score, NaN before the first."""
        width = min(max(3, self._count // 20), len(self._recent))
        return float(np.mean(list(self._recent)[-width:])) if width else float("nan")
