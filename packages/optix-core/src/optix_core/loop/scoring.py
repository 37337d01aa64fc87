"""From windows to scores: the training-window returns that the scheduler sees."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any, NamedTuple

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
    ends, mask = window.ends[:, 0], window.action_mask
    bounds = np.linspace(0, T, min(pieces, T) + 1).round().astype(int)
    for start, stop in pairwise(bounds):
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
            infos=None if window.infos is None else {name: column[rows] for name, column in window.infos.items()},
            episode_infos={name: values[episodes] for name, values in window.episode_infos.items()},
            action_mask=mask if mask is None else mask[rows],
            last_action_mask=mask[stop] if mask is not None and stop < T else window.last_action_mask,
            final_action_masks=None if window.final_action_masks is None else window.final_action_masks[episodes],
        )


class ScoreJoiner:
    """Joins the scores of windows too short to be judged one by one, as off-policy agents like them.

    In a window shorter than an episode often no episode ends, so its score would be missing, and the steps that it took
    with it.

    Args:
        env_steps: transitions that a joined score stands for, at least; 0 joins nothing.
    """

    def __init__(self, env_steps: int = 0) -> None:
        self._wanted = env_steps
        self._env_steps = 0
        self._episodes = 0
        self._total = 0.0

    def add(self, env_steps: int, score: float | None, episodes: int) -> tuple[float, int] | None:
        """Take in a window; return the mean over episodes and their number when there is enough, else None.

        Args:
            env_steps: transitions of the window.
            score: its mean score per episode, or None if no episode ended in it.
            episodes: episodes that ended in it.
        """
        if not self._wanted:
            return None if score is None else (score, episodes)
        self._env_steps += env_steps
        if score is not None:
            self._total += score * episodes
            self._episodes += episodes
        return self.flush() if self._env_steps >= self._wanted else None

    def flush(self) -> tuple[float, int] | None:
        """Return the mean over the episodes taken in and their number, and begin anew; None if there was none."""
        if not self._episodes:
            return None
        joined = self._total / self._episodes, self._episodes
        self._env_steps, self._episodes, self._total = 0, 0, 0.0
        return joined

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values."""
        return {"env_steps": self._env_steps, "episodes": self._episodes, "total": self._total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._env_steps, self._episodes = int(state["env_steps"]), int(state["episodes"])
        self._total = float(state["total"])


class ScoreSmoother:
    """Level of the latest scores: the mean of the last twentieth of them, of 3 at least and 50 at most."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=50)
        self._count = 0
        self._level = math.nan

    def update(self, score: float) -> float:
        """Take in a score and return the level."""
        self._recent.append(score)
        self._count += 1
        self._level = self._mean()
        return self._level

    @property
    def level(self) -> float:
        """The smoothed score, NaN before the first."""
        return self._level

    def _mean(self) -> float:
        width = min(max(3, self._count // 20), len(self._recent))
        return sum(islice(reversed(self._recent), width)) / width if width else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values."""
        return {"recent": list(self._recent), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._recent.clear()
        self._recent.extend(float(score) for score in state["recent"])
        self._count = int(state["count"])
        self._level = self._mean()


class ScorePoint(NamedTuple):
    """Episodes that one policy finished while training.

    Attributes:
        policy_version: the policy that collected the window.
        num_env_steps: training steps at the end of the window.
        score: mean score.
        episodes: how many episodes it averages.
        return_std: their sample standard deviation, 0 for a single one.
    """

    policy_version: int
    num_env_steps: int
    score: float
    episodes: int
    return_std: float


class ScoreHistory:
    """The scores of a whole run in bounded memory: neighbours are merged when there are too many.

    Args:
        limit: points kept at most between mergers are twice this number.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._points: list[ScorePoint] = []

    def add(self, point: ScorePoint) -> None:
        """Take in the score of a window."""
        self._points.append(point)
        if len(self._points) >= 2 * self._limit:
            self._points = _halve(self._points, keep=set())

    def points(self, *, keep: set[int], at_most: int = 200) -> list[ScorePoint]:
        """Return the history with about ``at_most`` points; those of the policy versions in ``keep`` stay single."""
        points = list(self._points)
        while len(points) > at_most + len(keep):
            merged = _halve(points, keep=keep)
            if len(merged) == len(points):
                break
            points = merged
        return points

    def state_dict(self) -> list[list[float]]:
        """Return the points as JSON-able values."""
        return [[p.policy_version, p.num_env_steps, p.score, p.episodes, p.return_std] for p in self._points]

    def load_state_dict(self, state: Sequence[Sequence[float]]) -> None:
        """Restore what ``state_dict`` returned."""
        self._points = [
            ScorePoint(
                policy_version=int(version),
                num_env_steps=int(steps),
                score=score,
                episodes=int(episodes),
                return_std=std,
            )
            for version, steps, score, episodes, std in state
        ]


def _halve(points: Sequence[ScorePoint], *, keep: set[int]) -> list[ScorePoint]:
    """Merge pairs of neighbours, leaving those of the policy versions in ``keep`` alone."""
    merged: list[ScorePoint] = []
    waiting: ScorePoint | None = None
    for point in points:
        if point.policy_version in keep:
            merged.extend([waiting, point] if waiting else [point])
            waiting = None
        elif waiting is None:
            waiting = point
        else:
            merged.append(_join(waiting, point))
            waiting = None
    return [*merged, waiting] if waiting else merged


def _join(a: ScorePoint, b: ScorePoint) -> ScorePoint:
    """Pool two groups of episodes: the mean and the standard deviation of all of them together."""
    episodes = a.episodes + b.episodes
    score = (a.episodes * a.score + b.episodes * b.score) / episodes
    squares = sum((p.episodes - 1) * p.return_std**2 + p.episodes * (p.score - score) ** 2 for p in (a, b))
    return ScorePoint(
        policy_version=b.policy_version,
        num_env_steps=b.num_env_steps,
        score=score,
        episodes=episodes,
        return_std=math.sqrt(squares / max(1, episodes - 1)),
    )
