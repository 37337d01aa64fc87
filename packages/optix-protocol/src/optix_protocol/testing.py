"""Windows for tests: what a pipeline would hand to ``learn`` or to an evaluator, without an environment.

.. code-block:: python

    from optix_protocol.testing import random_window

    def test_learning_is_finite():
        agent = make_agent()
        found = agent.learn(random_window(agent.observation_space, agent.action_space, seed=1))
        assert all(math.isfinite(value) for value in found.values())

Spaces are Gymnasium's, or anything with their attributes (``optix_protocol.conformance`` has small stand-ins).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optix_protocol.conformance.cases import Case, Cell, make_window
from optix_protocol.types import EpisodeData

__all__ = ["episodes_window", "random_window"]


def random_window(
    observation_space: Any,
    action_space: Any,
    *,
    num_steps: int = 16,
    num_envs: int = 3,
    seed: int = 0,
    ends: float = 0.1,
    terminated: Iterable[Cell] | None = None,
    truncated: Iterable[Cell] | None = None,
    reset_rows: bool = True,
    invalid_envs: Sequence[int] = (),
) -> EpisodeData:
    """Return a window of random interaction that keeps every rule of :class:`EpisodeData`.

    Observations and actions are uniform where their space is bounded and normal elsewhere, rewards are standard normal.

    Args:
        observation_space: of one environment: Box, Discrete, MultiDiscrete or MultiBinary.
        action_space: of one environment, likewise.
        num_steps: rows ``T``.
        num_envs: environments ``N``.
        seed: of everything in it.
        ends: probability that an episode ends in a row, by termination or truncation with equal chances; not used where
            ``terminated`` or ``truncated`` say where.
        terminated: cells ``(t, n)`` where an episode terminates.
        truncated: cells ``(t, n)`` where an episode is cut off.
        reset_rows: whether the row after an end is not valid, as in environments that reset in the step that follows.
        invalid_envs: environments that delivered nothing in this window.
    """
    if terminated is None and truncated is None:
        terminated, truncated = _random_ends(num_steps, num_envs, ends, np.random.default_rng([seed, 1]))
    return make_window(
        Case(observation_space=observation_space, action_space=action_space),
        num_steps=num_steps,
        num_envs=num_envs,
        seed=seed,
        terminated=terminated or (),
        truncated=truncated or (),
        reset_rows=reset_rows,
        invalid_envs=invalid_envs,
    )


def episodes_window(
    returns: ArrayLike = (), lengths: ArrayLike | None = None, *, rewards: ArrayLike = (0.0,)
) -> EpisodeData:
    """Return a window of one environment as evaluators see it: what its episodes returned, and its rewards.

    Observations are zeros, and nothing says where in the window an episode ended.

    Args:
        returns: ``[E]`` of the episodes that ended in it.
        lengths: ``[E]`` of these episodes; None takes 1 each.
        rewards: ``[T]`` of its rows.
    """
    rows, ended = np.asarray(rewards, np.float64)[:, None], np.asarray(returns, np.float64)
    none = np.zeros(rows.shape, np.bool_)
    return EpisodeData(
        observations=np.zeros((*rows.shape, 2), np.float32),
        actions=np.zeros(rows.shape, np.int64),
        rewards=rows,
        terminated=none,
        truncated=none,
        valid=~none,
        last_observation=np.zeros((1, 2), np.float32),
        final_observations=np.zeros((len(ended), 2), np.float32),
        episode_returns=ended,
        episode_lengths=np.ones(len(ended), np.int64) if lengths is None else np.asarray(lengths, np.int64),
    )


def _random_ends(
    num_steps: int, num_envs: int, chance: float, rng: np.random.Generator
) -> tuple[list[Cell], list[Cell]]:
    """Draw where episodes terminate and where they are cut off; never in the row after an end."""
    terminated: list[Cell] = []
    truncated: list[Cell] = []
    drawn = rng.random((num_steps, num_envs))
    ended = np.full(num_envs, False)
    for t in range(num_steps):
        ended = (drawn[t] < chance) & ~ended
        for n in np.flatnonzero(ended):
            (terminated if drawn[t, n] < chance / 2 else truncated).append((t, int(n)))
    return terminated, truncated
