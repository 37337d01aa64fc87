"""Environments of EnvPool (``envpool:Pong-v5``): stepped together in C++, made anew for every seed.

EnvPool begins the next episode with the step after the last one's end, gives environment ``i`` the seed ``s + i``,
ignores ``reset(seed=...)``, and cannot say where it is. So every seed makes a pool of its own, whose environments get
seeds that are derived by name and overlap with no others, and a resumed run begins new episodes and says so.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from optix_core.environments.foreign import load_module
from optix_core.environments.making import close_quietly, environment_failed, told
from optix_core.errors import EnvError, suggest
from optix_core.seeding import derive_seed
from optix_protocol import Array

PREFIX = "envpool:"
"""What ids of EnvPool begin with."""

_CAST = ".*precision lowered by casting"
"""What Gymnasium says of the bounds of every pool."""


def pool_name(env_id: str) -> str:
    """Return EnvPool's own id, checked.

    Args:
        env_id: with :data:`PREFIX`.

    Raises:
        EnvError: EnvPool is not installed, or has no such environment (with close matches).
    """
    name = env_id.removeprefix(PREFIX)
    if not importlib.util.find_spec("envpool"):
        raise EnvError(f'{env_id} needs envpool: pip install "optix-core[envpool]".')
    known = load_module("envpool").list_all_envs()
    if name not in known:
        raise EnvError(f"EnvPool has no environment '{name}'.{suggest(name, known)}")
    return name


class EnvPoolVector(gym.vector.VectorEnv[Any, Any, Any]):
    """A pool as a vector environment of Gymnasium.

    Args:
        env_id: with :data:`PREFIX`.
        num_envs: environments side by side.
        kwargs: further arguments of ``envpool.make``.

    Raises:
        EnvError: it cannot be made.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, env_id: str, num_envs: int, kwargs: Mapping[str, Any]) -> None:
        self._name = pool_name(env_id)
        self.num_envs = num_envs
        self._kwargs = dict(kwargs)
        self._pool = self._make(0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_CAST)
            self.single_observation_space = self._pool.observation_space
            self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._action_type = np.dtype(self._pool.spec.action_array_spec["action"].dtype)

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit in environment steps, if any."""
        limit = self._pool.config.get("max_episode_steps")
        return int(limit) if limit and limit < np.iinfo(np.int32).max else None

    @property
    def reward_threshold(self) -> float | None:
        """The return at which the task counts as solved, if any."""
        threshold = self._pool.config.get("reward_threshold")
        return float(threshold) if threshold is not None and np.isfinite(threshold) and threshold != 0 else None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode everywhere: in a new pool for a seed, else wherever the random numbers are."""
        del options
        if seed is not None:
            close_quietly(self._pool)
            self._pool = self._make(int(np.ravel(np.array(seed, np.int64))[0]))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_CAST)
            observations, _ = self._pool.reset()
        return observations, {}

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Take a step everywhere; where an episode had ended, begin the next one instead."""
        given = np.ascontiguousarray(actions, self._action_type)
        observations, rewards, terminated, truncated, _ = self._pool.step(given)
        return observations, np.asarray(rewards, np.float64), terminated & ~truncated, truncated, {}

    def close_extras(self, **kwargs: Any) -> None:
        """Close the pool."""
        del kwargs
        close_quietly(self._pool)

    def _make(self, seed: int) -> Any:
        seeds = [derive_seed(seed, "envpool", index) for index in range(self.num_envs)]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=_CAST)
                return load_module("envpool").make(
                    self._name, env_type="gymnasium", num_envs=self.num_envs, seed=seeds, **self._kwargs
                )
        except BaseException as error:
            failed = environment_failed(error, "")
            message = f"Environment '{PREFIX}{self._name}' cannot be made: {told(error)}"
            raise (failed if failed is error else EnvError(message)) from error
